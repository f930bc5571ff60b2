# SPDX-License-Identifier: Apache-2.0
"""Tars described by a recipe instead of being stored, for test cases with large or repetitive contents.

A recipe is ``{"format": 1, "entries": [...]}``. An entry has ``path`` and ``type`` and may have ``mode``, ``uid``,
``gid``, ``mtime``, ``size``, ``fill``, ``link`` and ``repeat`` (written that many times, ``path`` being a printf
format for the counter). The tar is plain ustar with the numbers in octal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from parma_wire.errors import Malformed

_PIECE: Final = 1 << 20
_TYPES: Final = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}

Recipe = Mapping[str, Any]


class RecipeTar:
    """The tar of a recipe as a readable stream; nothing of it is stored."""

    def __init__(self, recipe: Recipe) -> None:
        if recipe.get("format") != 1:
            raise Malformed("a recipe of an unknown format", expected="format 1")
        self._pieces = _pieces(recipe)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, none at the end."""
        gathered = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, None)) is not None:
            gathered.append(piece)
            have += len(piece)
        data = b"".join(gathered)
        self._rest = data[size:]
        return data[:size]


def _pieces(recipe: Recipe) -> Iterator[bytes]:
    for entry in _expanded(recipe["entries"]):
        size = entry.get("size", 0)
        yield _header(entry)
        if size:
            yield from _contents(entry["fill"], size)
            yield bytes(-size % 512)
    yield bytes(1024)


def _expanded(entries: list[Recipe]) -> Iterator[Recipe]:
    for entry in entries:
        if "repeat" not in entry:
            yield entry
            continue
        for counter in range(entry["repeat"]):
            yield {**entry, "path": entry["path"] % counter}


def _header(entry: Recipe) -> bytes:
    def octal(key: str, width: int, default: int = 0) -> bytes:
        return b"%0*o\0" % (width - 1, entry.get(key, default))

    name, link = entry["path"].encode(), entry.get("link", "").encode()
    if len(name) > 100 or len(link) > 100:
        raise Malformed("a recipe's names and links have at most 100 bytes")
    block = b"".join((
        name.ljust(100, b"\0"),
        octal("mode", 8, 0o644),
        octal("uid", 8),
        octal("gid", 8),
        octal("size", 12),
        octal("mtime", 12),
        b" " * 8,
        _TYPES[entry["type"]],
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"0000000\0" * 2,
    )).ljust(512, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _contents(fill: Recipe, size: int) -> Iterator[bytes]:
    for index, start in enumerate(range(0, size, _PIECE)):
        count = min(_PIECE, size - start)
        match fill["kind"]:
            case "byte":
                yield bytes([fill["value"]]) * count
            case "shake128":
                seed = fill["seed"].encode() + index.to_bytes(8, "big")
                yield hashlib.shake_128(seed).digest(count)
            case "islands":
                yield _islands(fill["at"], start, count)
            case kind:
                raise Malformed(f"a recipe with the unknown fill {kind!r}")


def _islands(islands: list[tuple[int, str]], start: int, count: int) -> bytes:
    piece = bytearray(count)
    for offset, text in islands:
        data = text.encode()
        first, last = max(offset, start), min(offset + len(data), start + count)
        if first < last:
            piece[first - start : last - start] = data[first - offset : last - offset]
    return bytes(piece)
