# SPDX-License-Identifier: Apache-2.0
"""From parsed values to Python types, with the place of whatever does not fit.

A ``Node`` is a value together with where it stands and how it is called in messages. Its methods either return what
they are named after or raise PolicyTextError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parma_policy.reader.errors import PolicyTextError, Source
from parma_policy.reader.syntax import Array, Object, Parameter, Reference, Value


def _kind(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}"
        case str():
            return f"the string {value[:60]!r}"
        case Array():
            return "an array"
        case Object():
            return "an object"
        case Reference():
            return value.path
        case Parameter():
            return f"parameter({value.name[:60]!r})"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the policy, its place and its name (``containers[2].user``)."""

    source: Source
    value: Value
    offset: int
    path: str

    def error(self, message: str, *, expected: str = "", hint: str = "") -> PolicyTextError:
        """An error about this value, to be raised by the caller."""
        return self.source.error(self.offset, f"{self.path}: {message}", expected=expected, hint=hint)

    def wrong(self, expected: str) -> PolicyTextError:
        """The error for a value of another type."""
        return self.error(f"found {_kind(self.value)}", expected=expected)

    def string(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.wrong("a string")
        return self.value

    def boolean(self) -> bool:
        """true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            raise self.wrong(f"a whole number from {low} to {high}")
        return self.value

    def elements(self, limit: int | None = None) -> Iterator[Node]:
        """The elements of an array."""
        if not isinstance(self.value, Array):
            raise self.wrong("an array")
        if limit is not None and len(self.value) > limit:
            raise self.error(f"{len(self.value)} elements", expected=f"at most {limit}")
        for index, (value, offset) in enumerate(zip(self.value, self.value.offsets, strict=True)):
            yield Node(self.source, value, offset, f"{self.path}[{index}]")

    def strings(self) -> tuple[str, ...]:
        """An array of strings."""
        if not isinstance(self.value, Array):
            raise self.wrong("an array of strings")
        for value in self.value:
            if not isinstance(value, str):
                return tuple(element.string() for element in self.elements())
        return tuple(value for value in self.value if isinstance(value, str))

    def signals(self) -> frozenset[int]:
        """An array of Linux signal numbers."""
        return frozenset(element.integer(0, 64) for element in self.elements())

    def members(self, required: Iterable[str], optional: Iterable[str] = ()) -> Members:
        """An object that has all ``required`` members and no others than those and the ``optional`` ones."""
        if not isinstance(self.value, Object):
            raise self.wrong("an object")
        required, optional = tuple(required), tuple(optional)
        for name in self.value:
            if name not in required and name not in optional:
                raise self.unknown_member(name, self.value, (*required, *optional))
        missing = [name for name in required if name not in self.value]
        if missing:
            raise self.error(f"member {missing[0]!r} is missing")
        return Members(self, self.value)

    def unknown_member(self, name: str, value: Object, known: Iterable[str]) -> PolicyTextError:
        close = difflib.get_close_matches(name, list(known), 1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        message = f"{self.path}: unknown member {name[:80]!r}"
        return self.source.error(value.offsets[name], message, hint=hint)


@dataclass(frozen=True, slots=True)
class Members:
    """The checked members of an object."""

    node: Node
    value: Object

    def __getitem__(self, name: str) -> Node:
        return Node(self.node.source, self.value[name], self.value.offsets[name], f"{self.node.path}.{name}")

    def get(self, name: str) -> Node | None:
        """The member, or None where it is absent."""
        return self[name] if name in self.value else None
