# SPDX-License-Identifier: Apache-2.0
"""Inodes: what is known of a file while the image grows, and its 256 bytes in the table (notes, sections 6-10)."""

from __future__ import annotations

import struct
from typing import Final

from parma_policy.layers import xattrs
from parma_policy.layers.errors import Kind, LayerError

S_IFMT: Final = 0xF000
S_IFIFO: Final = 0x1000
S_IFCHR: Final = 0x2000
S_IFDIR: Final = 0x4000
S_IFBLK: Final = 0x6000
S_IFREG: Final = 0x8000
S_IFLNK: Final = 0xA000

SIZE: Final = 256
ROOT: Final = 2
FIRST_FREE: Final = 11
SMALL_SYMLINK: Final = 59
MAX_LINKS: Final = 65000

_HUGE_FILE: Final = 0x40000
_EXTENTS: Final = 0x80000
_EXTRA_SIZE: Final = 24
_EXTENT_MAGIC: Final = 0xF30A
_EXTENT_BLOCKS: Final = 32768
_EXTENTS_IN_INODE: Final = 4
_EXTENTS_IN_BLOCK: Final = 340
NO_MAP: Final = bytes(60)
_MASK32: Final = 0xFFFFFFFF

_HEADER: Final = struct.Struct("<HHHHI")
_LEAF: Final = struct.Struct("<IHHI")
_INDEX: Final = struct.Struct("<IIHH")
_INODE: Final = struct.Struct("<HHIIIIIHHIII60sIIIIHHHHHHHHIIIII")

_FILE_TYPES: Final = {S_IFREG: 1, S_IFDIR: 2, S_IFCHR: 3, S_IFBLK: 4, S_IFIFO: 5, S_IFLNK: 7}


class Inode:
    """One inode. Times are the 64-bit words of ``times.encode``; sizes are bytes, ``blocks`` are 4096 bytes."""

    __slots__ = (
        "atime", "blocks", "children", "crtime", "ctime", "gid", "has_data", "links", "major", "map", "minor", "mode",
        "mtime", "number", "placed", "size", "uid", "xattr_block",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.mode = 0
        self.uid = self.gid = self.major = self.minor = 0
        self.size = self.links = self.blocks = self.xattr_block = 0
        self.atime = self.ctime = self.mtime = self.crtime = 0
        self.placed = xattrs.NOTHING
        self.has_data = False
        self.map = NO_MAP  # the 60 bytes of i_block
        self.children: dict[bytes, Inode] | None = None

    @property
    def is_directory(self) -> bool:
        return self.mode & S_IFMT == S_IFDIR

    @property
    def file_type(self) -> int:
        """The type byte of a directory entry."""
        return _FILE_TYPES[self.mode & S_IFMT]

    def pack(self) -> bytes:
        """The 256 bytes of the inode table."""
        flags = _HUGE_FILE | (_EXTENTS if self.has_data else 0)
        packed = _INODE.pack(
            self.mode,
            self.uid & 0xFFFF,
            self.size & _MASK32,
            self.atime & _MASK32,
            self.ctime & _MASK32,
            self.mtime & _MASK32,
            0,
            self.gid & 0xFFFF,
            self.links,
            self.blocks,
            flags,
            0,
            self._block_field(),
            0,
            self.xattr_block,
            self.size >> 32,
            0,
            0,
            0,
            self.uid >> 16,
            self.gid >> 16,
            0,
            0,
            _EXTRA_SIZE,
            0,
            self.ctime >> 32,
            self.mtime >> 32,
            self.atime >> 32,
            self.crtime & _MASK32,
            self.crtime >> 32,
        )
        if self.placed.inode:
            return packed + xattrs.inode_area(self.placed.inode)
        return packed.ljust(SIZE, b"\0")

    def _block_field(self) -> bytes:
        if self.mode & S_IFMT in (S_IFCHR, S_IFBLK):
            device = (self.minor & 0xFF) | (self.major << 8) | ((self.minor & 0xFFFFFF00) << 12)
            return struct.pack("<4xI52x", device & _MASK32)
        return self.map


def map_data(inode: Inode, first: int, blocks: int, next_block: int) -> bytes:
    """Give ``inode`` the extents of ``blocks`` contiguous blocks from ``first``.

    Returns the leaf block to be written at ``next_block``, or nothing where the inode holds the extents itself.
    """
    count = -(-blocks // _EXTENT_BLOCKS)
    inode.has_data = True
    inode.blocks += blocks
    if count <= _EXTENTS_IN_INODE:
        header = _HEADER.pack(_EXTENT_MAGIC, count, _EXTENTS_IN_INODE, 0, 0)
        inode.map = (header + _extents(first, blocks)).ljust(60, b"\0")
        return b""
    if count >= _EXTENTS_IN_BLOCK:
        # From here on the reference makes images whose files cannot be read (notes, section 6).
        raise LayerError(Kind.FILE_TOO_BIG, "a file of more than 42 GiB cannot be stored in a layer image")
    root = _HEADER.pack(_EXTENT_MAGIC, 1, _EXTENTS_IN_INODE, 1, 0) + _INDEX.pack(0, next_block & _MASK32, 0, 0)
    inode.map = root.ljust(60, b"\0")
    inode.blocks += 1
    return _HEADER.pack(_EXTENT_MAGIC, count, _EXTENTS_IN_BLOCK, 0, 0) + _extents(first, blocks)


def _extents(first: int, blocks: int) -> bytes:
    packed = []
    for logical in range(0, blocks, _EXTENT_BLOCKS):
        length = min(_EXTENT_BLOCKS, blocks - logical)
        packed.append(_LEAF.pack(logical, length, 0, first + logical))
    return b"".join(packed)
