# SPDX-License-Identifier: Apache-2.0
"""Unpacks LZ4's legacy frame, the one the kernel reads, so that checking an image takes no other program.

Format: LZ4 Frame Format Description, "Legacy frame", and LZ4 Block Format Description.
"""

from __future__ import annotations

from typing import Final

from parma_wire.errors import Malformed

_MAGIC: Final = bytes.fromhex("02214c18")
_BLOCK: Final = 8 << 20  # unpacked size of every block but the last
_EXTENDED: Final = 15
_MINIMUM_MATCH: Final = 4


def decompress(data: bytes, limit: int = 1 << 30) -> bytes:
    """The contents of a legacy frame. Malformed for anything else, or for more than ``limit`` bytes."""
    if data[:4] != _MAGIC:
        raise Malformed("not an LZ4 legacy frame")
    out = bytearray()
    position = 4
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        block = data[position + 4 : position + 4 + size]
        if size == 0 or len(block) != size or len(out) > limit:
            raise Malformed("truncated or oversized LZ4 frame")
        try:
            out += _block(block)
        except IndexError:
            raise Malformed("broken LZ4 block") from None
        position += 4 + size
    return bytes(out)


def _block(data: bytes) -> bytearray:
    out = bytearray()
    position = 0
    while True:
        token = data[position]
        length, position = _length(data, position + 1, token >> 4)
        out += data[position : position + length]
        position += length
        if position >= len(data):
            break
        offset = data[position] | data[position + 1] << 8
        length, position = _length(data, position + 2, token & 15)
        length += _MINIMUM_MATCH
        start = len(out) - offset
        if offset == 0 or start < 0:
            raise Malformed("broken LZ4 block")
        if offset >= length:
            out += out[start : start + length]
        else:  # the match runs into itself: its beginning is repeated
            out += (out[start:] * (length // offset + 1))[:length]
        if len(out) > _BLOCK:
            raise Malformed("oversized LZ4 block")
    if len(out) > _BLOCK or position != len(data):
        raise Malformed("broken LZ4 block")
    return out


def _length(data: bytes, position: int, length: int) -> tuple[int, int]:
    """A length that may continue in further bytes, and the position after it."""
    if length == _EXTENDED:
        while True:
            byte = data[position]
            position += 1
            length += byte
            if byte != 255:
                break
    return length, position
