# SPDX-License-Identifier: Apache-2.0
"""The part of CBOR that signed documents are made of, read strictly and written deterministically.

Source: RFC 8949. A general decoder gives meaning to dozens of tags (shared references, regular expressions, sets, big
numbers) before anybody has looked at the result; this one knows integers, byte and text strings, arrays, maps whose
keys are integers or text, tags as such, ``false``, ``true`` and ``null``. Refused are: trailing bytes, indefinite
lengths, longer than necessary encodings, duplicate keys, floating point, other simple values, and any nesting or
size beyond the limits. So there is exactly one encoding of what it accepts, up to the order of keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Never, TypeAlias

from parma_cose.errors import CoseError

MAX_DEPTH: Final = 12
"""Containers and tags inside each other."""

_SIMPLE: Final[dict[int, bool | None]] = {20: False, 21: True, 22: None}
_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value (RFC 8949, section 3.4)."""

    number: int
    value: Value


Label: TypeAlias = int | str
"""A key of a map."""
Value: TypeAlias = "int | bytes | str | bool | Tag | Sequence[Value] | Mapping[Label, Value] | None"


def decode(data: bytes, *, limit: int) -> Value:
    """One value that fills ``data``, of at most ``limit`` bytes. Raises CoseError ``format``."""
    if len(data) > limit:
        raise CoseError("format", "CBOR is too large", expected=f"at most {limit} bytes", found=str(len(data)))
    reader = _Reader(data)
    value = reader.value(0)
    if reader.offset != len(data):
        reader.refuse("something follows the value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def refuse(self, problem: str) -> Never:
        raise CoseError("format", f"not strict CBOR: {problem}", found=f"offset {self.offset}")

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self.refuse("nested too deeply")
        major, number = self._head()
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 2:
            return self._take(number)
        if major == 3:
            return self._text(number)
        if major == 4:
            return [self.value(depth + 1) for _ in range(self._count(number, 1))]
        if major == 5:
            return self._map(self._count(number, 2), depth)
        if major == 6:
            return Tag(number, self.value(depth + 1))
        if number not in _SIMPLE:
            self.refuse("a simple value or floating point number")
        return _SIMPLE[number]

    def _head(self) -> tuple[int, int]:
        (first,) = self._take(1)
        major, number = first >> 5, first & 0x1F
        if number < 24:
            return major, number
        if number not in _SIZES or major == 7:
            self.refuse("an indefinite length, a floating point number or a reserved value")
        size = _SIZES[number]
        number = int.from_bytes(self._take(size), "big")
        if number < (24 if size == 1 else 1 << 4 * size):
            self.refuse("a number is longer than necessary")
        return major, number

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.offset:
            self.refuse("it ends early")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def _count(self, number: int, bytes_each: int) -> int:
        """Elements of a container, none of which can be shorter than a byte."""
        if number * bytes_each > len(self.data) - self.offset:
            self.refuse("it ends early")
        return number

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("a text that is not UTF-8")

    def _map(self, count: int, depth: int) -> dict[Label, Value]:
        found: dict[Label, Value] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if isinstance(key, bool) or not isinstance(key, int | str):
                self.refuse("a map's key is neither an integer nor text")
            if key in found:
                self.refuse("a map has a key twice")
            found[key] = self.value(depth + 1)
        return found


def encode(value: Value) -> bytes:
    """The deterministic encoding (RFC 8949, section 4.2.1). Raises ValueError for numbers of more than 64 bits."""
    if isinstance(value, bool) or value is None:
        return bytes([0xE0 | next(code for code, simple in _SIMPLE.items() if simple is value)])
    if isinstance(value, int):
        return _start(0, value) if value >= 0 else _start(1, -1 - value)
    if isinstance(value, bytes):
        return _start(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _start(3, len(text)) + text
    if isinstance(value, Tag):
        return _start(6, value.number) + encode(value.value)
    if isinstance(value, Mapping):
        members = sorted((encode(key), encode(item)) for key, item in value.items())
        return _start(5, len(members)) + b"".join(key + item for key, item in members)
    return _start(4, len(value)) + b"".join(map(encode, value))


def _start(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in _SIZES.items():
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise ValueError("CBOR numbers have at most 64 bits")
