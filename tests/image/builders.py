# SPDX-License-Identifier: Apache-2.0
"""Small ELF files, made field by field."""

from __future__ import annotations

import struct


def _header(*, program_count: int = 0, section_count: int = 0, section_offset: int = 0, names: int = 0) -> bytes:
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return identity + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, section_offset, 0, 64, 56, program_count, 64, section_count, names
    )


def library(needed: list[str], interpreter: str = "") -> bytes:
    """A shared library with these DT_NEEDED names; its file offsets differ from its addresses by 0x1000."""
    strings = b"\0"
    offsets = []
    for name in needed:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    count = 2 + bool(interpreter)
    base = 64 + 56 * count
    dynamic_offset = base + len(strings)
    dynamic = b"".join(struct.pack("<qQ", 1, offset) for offset in offsets)
    dynamic += struct.pack("<qQ", 5, base + 0x1000) + struct.pack("<qQ", 0, 0)
    interpreter_offset = dynamic_offset + len(dynamic)
    total = interpreter_offset + len(interpreter) + 1
    segments = [(1, 0, 0x1000, total), (2, dynamic_offset, dynamic_offset + 0x1000, len(dynamic))]
    if interpreter:
        segments.append((3, interpreter_offset, interpreter_offset + 0x1000, len(interpreter) + 1))
    programs = b"".join(struct.pack("<IIQQQQQQ", t, 4, o, a, a, s, s, 8) for t, o, a, s in segments)
    return _header(program_count=count) + programs + strings + dynamic + interpreter.encode() + b"\0"


def module(information: list[str]) -> bytes:
    """A kernel module with this ``.modinfo``."""
    names = b"\0.modinfo\0.shstrtab\0"
    text = b"".join(item.encode() + b"\0" for item in information)
    offset = 64 + len(names) + len(text)
    sections = [(0, 0, 0), (1, 64 + len(names), len(text)), (10, 64, len(names))]
    table = b"".join(struct.pack("<IIQQQQIIQQ", n, 1, 0, 0, o, s, 0, 0, 1, 0) for n, o, s in sections)
    return _header(section_count=3, section_offset=offset, names=2) + names + text + table


def signed(data: bytes, signature: bytes = b"s" * 100) -> bytes:
    """The module as the kernel's build signs it."""
    return data + signature + bytes(8) + struct.pack(">I", len(signature)) + b"~Module signature appended~\n"
