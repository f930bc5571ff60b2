# SPDX-License-Identifier: Apache-2.0
"""As much of ELF (64 bit, little endian) as it takes to see what a file needs: libraries, loader, module facts."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from parma_wire.errors import Malformed

_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_PROGRAM: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_CLASS_64, _LITTLE_ENDIAN, _X86_64 = 2, 1, 62
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


class Header(NamedTuple):
    """The ELF header's fields, in file order without the padding."""

    magic: bytes
    elf_class: int
    byte_order: int
    type: int
    machine: int
    version: int
    entry: int
    program_offset: int
    section_offset: int
    flags: int
    header_size: int
    program_size: int
    program_count: int
    section_size: int
    section_count: int
    section_names: int


@dataclass(frozen=True)
class Segment:
    """One program header: where a piece of the file is, in the file and in memory."""

    type: int
    offset: int
    address: int
    size: int


@dataclass(frozen=True)
class Needs:
    """Libraries by DT_NEEDED name, and the dynamic loader's path (empty for libraries and static programs)."""

    libraries: tuple[str, ...]
    interpreter: str


def is_elf(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def needs(data: bytes) -> Needs:
    """What a program or shared library needs at run time. Malformed for what is not a 64-bit x86 ELF file."""
    segments = _segments(data)
    interpreter = next((_text(data, s.offset) for s in segments if s.type == _PT_INTERP), "")
    dynamic = next((s for s in segments if s.type == _PT_DYNAMIC), None)
    if dynamic is None:
        return Needs((), interpreter)
    pairs = list(_DYNAMIC.iter_unpack(_slice(data, dynamic.offset, dynamic.size // _DYNAMIC.size * _DYNAMIC.size)))
    tables = [value for tag, value in pairs if tag == _DT_STRTAB]
    names = [value for tag, value in pairs if tag == _DT_NEEDED]
    if names and not tables:
        raise Malformed("ELF file without a string table")
    base = _file_offset(segments, tables[0]) if tables else 0
    return Needs(tuple(_text(data, base + name) for name in names), interpreter)


def modinfo(data: bytes) -> dict[str, list[str]]:
    """The ``.modinfo`` section of a kernel module: each key with its values in file order."""
    header = _header(data)
    sections = [
        _unpack(_SECTION, data, header.section_offset + index * header.section_size)
        for index in range(header.section_count)
    ]
    if header.section_names >= len(sections):
        raise Malformed("ELF file without section names")
    names = sections[header.section_names][4]
    values: dict[str, list[str]] = {}
    for section in sections:
        if _text(data, names + section[0]) != ".modinfo":
            continue
        for item in _slice(data, section[4], section[5]).decode("ascii", "replace").split("\0"):
            key, separator, value = item.partition("=")
            if separator:
                values.setdefault(key, []).append(value)
    return values


def _header(data: bytes) -> Header:
    header = Header(*_unpack(_HEADER, data, 0))
    if header.magic != b"\x7fELF" or header.elf_class != _CLASS_64 or header.byte_order != _LITTLE_ENDIAN:
        raise Malformed("not a 64-bit little-endian ELF file")
    if header.machine != _X86_64:
        raise Malformed(f"ELF file for machine {header.machine}", expected="x86-64")
    return header


def _segments(data: bytes) -> list[Segment]:
    header = _header(data)
    rows = (
        _unpack(_PROGRAM, data, header.program_offset + index * header.program_size)
        for index in range(header.program_count)
    )
    return [Segment(row[0], row[2], row[3], row[5]) for row in rows]


def _file_offset(segments: list[Segment], address: int) -> int:
    for segment in segments:
        if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise Malformed("ELF address outside every segment")


def _unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[Any, ...]:
    return layout.unpack(_slice(data, offset, layout.size))


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset < 0 or size < 0 or offset + size > len(data):
        raise Malformed("truncated ELF file")
    return data[offset : offset + size]


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    if offset < 0 or offset >= len(data) or end < 0:
        raise Malformed("truncated ELF file")
    return data[offset:end].decode("utf-8", "replace")
