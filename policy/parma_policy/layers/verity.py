# SPDX-License-Identifier: Apache-2.0
"""dm-verity hash trees: SHA-256, 4096-byte blocks, a salt of 32 zero bytes (layer format notes, section 13)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

BLOCK: Final = 4096
"""Bytes in a data block and in a hash block."""

DIGEST: Final = 32
"""Bytes of a digest."""

SALT: Final = bytes(32)
_PER_BLOCK: Final = BLOCK // DIGEST
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s")

# One hash object that has eaten the salt; copying it is cheaper than hashing the salt again.
_salted = hashlib.sha256(SALT).copy


def block_digest(block: bytes | bytearray | memoryview) -> bytes:
    """The salted digest of one block (not hexadecimal)."""
    state = _salted()
    state.update(block)
    return state.digest()


def append_digests(digests: bytearray, data: bytes | bytearray | memoryview) -> None:
    """Append the digests of all blocks of ``data``, whose length is a multiple of the block size."""
    salted = _salted
    view = memoryview(data)
    found = []
    for start in range(0, len(view), BLOCK):
        state = salted()
        state.update(view[start : start + BLOCK])
        found.append(state.digest())
    digests += b"".join(found)


def tree_levels(digests: bytes | bytearray) -> tuple[list[bytes], bytes]:
    """The levels above the data, level 0 first, each a multiple of the block size, and the root digest."""
    levels: list[bytes] = []
    current: bytes | bytearray = digests
    while True:
        level = bytes(current) + bytes(-len(current) % BLOCK)
        levels.append(level)
        if len(level) == BLOCK:
            return levels, block_digest(level)
        current = bytearray()
        append_digests(current, level)


def level_blocks(data_blocks: int) -> list[int]:
    """Blocks in each level of the tree over ``data_blocks`` blocks, level 0 first."""
    counts: list[int] = []
    remaining = data_blocks
    while not counts or counts[-1] > 1:
        remaining = max(1, -(-remaining // _PER_BLOCK))
        counts.append(remaining)
    return counts


def hash_device_size(data_blocks: int) -> int:
    """Bytes of superblock and tree over ``data_blocks`` blocks."""
    return BLOCK * (1 + sum(level_blocks(data_blocks)))


def superblock(data_blocks: int, uuid: bytes = bytes(16)) -> bytes:
    """The 4096-byte dm-verity superblock.

    It is informative only: the guest takes every parameter from the policy or its own code. The UUID is zero, so
    that the same layer gives the same bytes everywhere.
    """
    packed = _SUPERBLOCK.pack(
        b"verity\0\0", 1, 1, uuid, b"sha256", BLOCK, BLOCK, data_blocks, len(SALT), SALT.ljust(256, b"\0")
    )
    return packed.ljust(BLOCK, b"\0")


def hash_device(digests: bytes | bytearray) -> tuple[Iterable[bytes], str]:
    """What follows the data (superblock, then the tree from the top level down) and the root hash in hexadecimal."""
    levels, root = tree_levels(digests)
    return [superblock(len(digests) // DIGEST), *reversed(levels)], root.hex()
