# SPDX-License-Identifier: Apache-2.0
"""Bytes as a list of changes to something that is right.

Changed bytes of a JSON text or of a protobuf message are hardly ever one again. What lies behind the decoder is
reached by changing the values in it instead: the fuzzer's bytes say which place becomes what.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

MOST: Final = 12
"""Changes made of one input."""


class Choices:
    """Numbers taken from bytes, until there are none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is another number."""
        return self._at < len(self._data)

    def below(self, limit: int) -> int:
        """A number less than ``limit``, which is at most 65,536; 0 at the end."""
        size = 1 if limit <= 256 else 2
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "little") % limit

    def pick(self, items: Sequence[Any]) -> Any:
        """One of them."""
        return items[self.below(len(items))]

    def text(self) -> str:
        """A short text that the bytes spell."""
        length = self.below(64)
        piece = self._data[self._at : self._at + length]
        self._at += length
        return piece.decode("utf-8", "ignore")


_JSON: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 65_536, 1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 63), 0.5, float("inf")),
    *("", "/", "..", "/../..", "a\0b", "\ud800", "bind", "rbind", "tmpfs", "proc", "\n", "%s%n", "é", "x" * 5000),
    *([], {}, [None], [[]], [{}], {"": ""}, [0], ["x"], {"type": "x"}, [["x"]]),
)

_NUMBERS: Final = (0, 1, 2, 9, 15, 64, 65, 255, 256, 1000, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_LARGE: Final = ((1 << 62) + 1, (1 << 63) - 1, (1 << 64) - 1, -1, -1000, -(1 << 31), -(1 << 63))
_MOST_ITEMS: Final = 40
_MOST_PLACES: Final = 1000


def edited_json(good: Any, data: bytes) -> Any:
    """``good`` with values, anywhere in it, replaced, removed or moved elsewhere."""
    value = copy.deepcopy(good)
    choices = Choices(data)
    for _ in range(MOST):
        if not choices.left:
            break
        places = [*_places(value)]
        if not 0 < len(places) < _MOST_PLACES:
            break
        holder, key = choices.pick(places)
        what = choices.below(len(_JSON) + 3)
        if what < len(_JSON):
            holder[key] = copy.deepcopy(_JSON[what])
        elif what == len(_JSON):
            del holder[key]
        elif what == len(_JSON) + 1:
            holder[key] = choices.text()
        else:
            other, name = choices.pick(places)
            holder[key] = copy.deepcopy(other[name])
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every object and list, by its holder and key."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield value, key
        yield from _places(item)


def edit_message(message: Message, choices: Choices, texts: Sequence[str]) -> None:
    """Changes one field, anywhere in the message; ``texts`` are strings that mean something there."""
    holder = choices.pick([*_messages(message)])
    fields = holder.DESCRIPTOR.fields
    if not fields:
        return
    field = choices.pick(fields)
    if field.is_repeated:
        _edit_repeated(holder, field, choices, texts)
    elif field.message_type is not None:
        if choices.below(2):
            getattr(holder, field.name).SetInParent()
        else:
            holder.ClearField(field.name)
    elif not choices.below(8):
        holder.ClearField(field.name)
    else:
        _set(field, choices, texts, lambda value: setattr(holder, field.name, value))


def _edit_repeated(holder: Any, field: FieldDescriptor, choices: Choices, texts: Sequence[str]) -> None:
    items = getattr(holder, field.name)
    what = choices.below(4)
    if what == 0:
        holder.ClearField(field.name)
    elif isinstance(items, Mapping):
        items[choices.pick(texts)] = choices.pick(texts)  # type: ignore[index]
    elif len(items) >= _MOST_ITEMS:
        return
    elif what == 1 and len(items):
        items.append(copy.deepcopy(items[choices.below(len(items))]))
    elif field.message_type is not None:
        items.add()
    else:
        _set(field, choices, texts, items.append)


def _set(field: FieldDescriptor, choices: Choices, texts: Sequence[str], put: Callable[[Any], None]) -> None:
    """A value of the field's type."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        put(bool(choices.below(2)))
    elif kind == FieldDescriptor.CPPTYPE_STRING:
        text = choices.pick(texts) if choices.below(4) else choices.text()
        put(text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text)
    else:
        try:
            put(choices.pick((*_NUMBERS, *_LARGE)))
        except ValueError:  # too large for this one
            put(choices.below(65_536))


def _messages(message: Message) -> Iterator[Message]:
    """The message and those in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else (value,):
            yield from _messages(item)
