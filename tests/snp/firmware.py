# SPDX-License-Identifier: Apache-2.0
"""A firmware image of one page that has just the tables which a measurement depends on (for tests).

The tables are those of OVMF: a GUIDed table that ends 32 bytes before the end of the image, read backwards, and the
SEV metadata that one of its entries points to.
"""

from __future__ import annotations

import struct
import uuid

_FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
_HASH_TABLE = "7255371f-3a3b-4b04-927b-1da6efa8d454"
_RESET_BLOCK = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
_METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
PAGE = 4096
SECTIONS = [(0x800000, 0x2000, 1), (0x80D000, PAGE, 2), (0x80E000, PAGE, 3), (0x810000, PAGE, 0x10)]


def _entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


def build(*, hash_table: bool = True) -> bytes:
    """The image, 4096 bytes."""
    sections = SECTIONS if hash_table else SECTIONS[:-1]
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *section) for section in sections)
    offset_from_end = 1024
    entries = _entry(_RESET_BLOCK, struct.pack("<I", 0x80B004)) + _entry(_METADATA, struct.pack("<I", offset_from_end))
    if hash_table:
        entries += _entry(_HASH_TABLE, struct.pack("<II", 0x810C00, 0x400))
    table = entries + struct.pack("<H", len(entries) + 18) + uuid.UUID(_FOOTER).bytes_le
    image = bytearray(PAGE)
    image[PAGE - offset_from_end : PAGE - offset_from_end + len(metadata)] = metadata
    image[PAGE - 32 - len(table) : PAGE - 32] = table
    return bytes(image)
