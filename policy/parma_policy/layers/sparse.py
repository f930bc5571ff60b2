# SPDX-License-Identifier: Apache-2.0
"""GNU sparse files: the maps of all four formats, and the holes they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from parma_policy.layers.errors import Kind, LayerError
from parma_policy.layers.pax import SPARSE_MAP, parse_int

Fragment: TypeAlias = tuple[int, int]
"""(offset, length) in bytes."""

_MAX_MAP_BYTES: Final = 1 << 20
_MAX_ENTRIES: Final = 1 << 20
_MAX_INT: Final = (1 << 63) - 1
_OLD_MAP: Final = slice(386, 483)
_OLD_ENTRY: Final = 24


def read_old_map(header: bytes, read_block: Callable[[], bytes], number: Callable[[bytes], int]) -> list[Fragment]:
    """The map of an old GNU sparse header and its extension blocks (``read_block`` returns 512 bytes)."""
    fragments: list[Fragment] = []
    area = header[_OLD_MAP]
    total = len(area)
    while total < _MAX_MAP_BYTES:
        entries = len(area) // _OLD_ENTRY
        for i in range(entries):
            entry = area[i * _OLD_ENTRY : (i + 1) * _OLD_ENTRY]
            if entry[0] == 0:
                break
            _add(fragments, number(entry[:12]), number(entry[12:]))
        if area[entries * _OLD_ENTRY] == 0:
            return fragments
        area = read_block()
        total += len(area)
    raise _too_long()


def read_pax_map(records: dict[bytes, bytes]) -> list[Fragment]:
    """The map of sparse formats 0.0 and 0.1, which is in the pax header itself."""
    count = parse_int(records.get(b"GNU.sparse.numblocks", b""))
    text = records.get(SPARSE_MAP, b"")
    numbers = text.split(b",") if text else []
    if count < 0 or len(numbers) != 2 * count:
        raise _invalid()
    fragments: list[Fragment] = []
    for i in range(0, len(numbers), 2):
        _add(fragments, parse_int(numbers[i]), parse_int(numbers[i + 1]))
    return fragments


def read_data_map(read_block: Callable[[], bytes]) -> list[Fragment]:
    """The map of sparse format 1.0, which opens the file's data in whole blocks of 512 bytes."""
    text = bytearray()
    newlines = 0

    def feed(wanted: int) -> None:
        nonlocal newlines
        while newlines < wanted:
            if len(text) + 512 > _MAX_MAP_BYTES:
                raise _too_long()
            block = read_block()
            newlines += block.count(b"\n")
            text.extend(block)

    feed(1)
    count = parse_int(bytes(text[: text.index(b"\n")]))
    if not 0 <= count <= _MAX_INT // 2:
        raise _invalid()
    # The line of the count is not counted among the numbers, so one newline is used up.
    newlines -= 1
    feed(2 * count)
    lines = bytes(text).split(b"\n")
    fragments: list[Fragment] = []
    for i in range(count):
        _add(fragments, parse_int(lines[1 + 2 * i]), parse_int(lines[2 + 2 * i]))
    return fragments


def holes(fragments: list[Fragment], size: int) -> list[Fragment]:
    """Check a map against the file's real size and return the gaps between its fragments.

    The last gap is always present, even when empty.
    """
    if size < 0:
        raise _invalid()
    end = 0
    for offset, length in fragments:
        if offset < 0 or length < 0 or offset + length > min(size, _MAX_INT) or offset < end:
            raise _invalid()
        end = offset + length
    gaps: list[Fragment] = []
    position = 0
    for offset, length in fragments:
        if length == 0:
            continue
        if offset > position:
            gaps.append((position, offset - position))
        position = offset + length
    gaps.append((position, size - position))
    return gaps


def _add(fragments: list[Fragment], offset: int, length: int) -> None:
    if len(fragments) >= _MAX_ENTRIES:
        raise _too_long()
    fragments.append((offset, length))


def _invalid() -> LayerError:
    return LayerError(Kind.TAR_HEADER, "invalid map of a sparse file")


def _too_long() -> LayerError:
    return LayerError(Kind.TAR_HEADER, "the map of a sparse file is too long")
