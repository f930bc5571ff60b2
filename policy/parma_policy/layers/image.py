# SPDX-License-Identifier: Apache-2.0
"""Closing the image: directories, inode tables, bitmaps, descriptors, superblock (notes, sections 9, 11 and 12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from parma_policy.layers import inode as ino
from parma_policy.layers.blocks import BlockSink
from parma_policy.layers.errors import Kind, LayerError
from parma_policy.layers.filesystem import FileSystem
from parma_policy.layers.inode import Inode
from parma_policy.layers.verity import BLOCK

GIB: Final = 1 << 30
DEFAULT_DISK: Final = 16 * GIB
LARGEST_DISK: Final = 16 * 1024 * GIB

_GROUP: Final = 32768
_DESCRIPTORS_PER_BLOCK: Final = 128
_INODES_PER_BLOCK: Final = BLOCK // ino.SIZE
_MASK32: Final = 0xFFFFFFFF
_ENTRY: Final = struct.Struct("<IHBB")
_ENTRY_CLOSE: Final = 12
_DESCRIPTOR: Final = struct.Struct("<IIIHHH14x")
_TABLE_PIECE: Final = 4096


def disk_blocks(maximum_disk_size: int) -> int:
    """The limit in blocks for a requested maximum size in bytes (negative: largest, 0: default)."""
    if maximum_disk_size < 0 or maximum_disk_size > LARGEST_DISK:
        return LARGEST_DISK // BLOCK
    return -(-(maximum_disk_size or DEFAULT_DISK) // BLOCK)


def descriptor_blocks(limit: int) -> int:
    """Blocks set aside for group descriptors on a disk of at most ``limit`` blocks."""
    groups = -(-limit // _GROUP)
    return -(-groups // _DESCRIPTORS_PER_BLOCK)


def close(files: FileSystem, sink: BlockSink, reserved: int) -> None:
    """Append all that follows the file data and fill in the head of the image.

    ``reserved`` is ``descriptor_blocks`` of the limit. LayerError DISK_TOO_BIG when it does not fit.
    """
    for node, parent in _directories(files.root):
        contents = _directory(node, parent)
        files.write_data(node, (contents,))
        node.size = len(contents)
    table = sink.next
    groups, per_group = _best_groups(table, len(files.inodes))
    _write_table(files.inodes, sink, groups * per_group)
    bitmaps = sink.next
    used = bitmaps + 2 * groups
    total = max(used, (groups - 1) * _GROUP + 1)
    used_descriptors = -(-groups // _DESCRIPTORS_PER_BLOCK)
    if used_descriptors > reserved:
        raise LayerError(Kind.DISK_TOO_BIG, "disk exceeded maximum size: too many block groups")

    directories = _directories_per_group(files.inodes, groups, per_group)
    descriptors = bytearray()
    free_blocks = 0
    for group in range(groups):
        bitmap = _block_bitmap(group, used, total, reserved - used_descriptors, used_descriptors)
        inodes_used = min(max(len(files.inodes) - group * per_group, 0), per_group)
        sink.append(bitmap.to_bytes(BLOCK, "little") + ((1 << inodes_used) - 1).to_bytes(BLOCK, "little"))
        free = _GROUP - bitmap.bit_count()
        free_blocks += free
        descriptors += _DESCRIPTOR.pack(
            bitmaps + 2 * group,
            bitmaps + 2 * group + 1,
            table + group * (per_group // _INODES_PER_BLOCK),
            free & 0xFFFF,
            per_group - inodes_used & 0xFFFF,
            directories[group] & 0xFFFF,
        )
    sink.append_zeros(total - used)

    inodes = groups * per_group
    head = _superblock(inodes, total, free_blocks & _MASK32, inodes - len(files.inodes), per_group)
    sink.rewrite(0, head + descriptors.ljust(reserved * BLOCK, b"\0"))


def _children(node: Inode) -> list[tuple[bytes, Inode]]:
    """Names and inodes of a directory in storage order: by inode number, then name."""
    return sorted((node.children or {}).items(), key=lambda item: (item[1].number, item[0]))


def _directories(root: Inode) -> Iterator[tuple[Inode, Inode]]:
    """(directory, its parent), each before its children, depth first; paths may be deeper than Python's stack."""
    pending = [(root, root)]
    while pending:
        node, parent = pending.pop()
        yield node, parent
        children = [child for _, child in _children(node) if child.is_directory]
        pending += [(child, node) for child in reversed(children)]


def _directory(node: Inode, parent: Inode) -> bytes:
    """The blocks of a directory."""
    out = bytearray()
    left = BLOCK
    for name, child in ((b".", node), (b"..", parent), *_children(node)):
        length = 8 + len(name) + 3 & ~3
        if left < length + _ENTRY_CLOSE:
            out += _ENTRY.pack(0, left, 0, 0) + bytes(left - _ENTRY.size)
            left = BLOCK
        out += _ENTRY.pack(child.number, length, len(name), child.file_type) + name
        out += bytes(length - _ENTRY.size - len(name))
        left -= length
    out += _ENTRY.pack(0, left, 0, 0) + bytes(left - _ENTRY.size)
    return bytes(out)


def _best_groups(blocks: int, inodes: int) -> tuple[int, int]:
    """(groups, inodes per group): fewest groups, then fewest inodes each. 32-bit arithmetic as in the reference."""
    best, best_per_group = _MASK32, 0
    for per_group in range(_INODES_PER_BLOCK, _GROUP + 1, _INODES_PER_BLOCK):
        data_blocks = _GROUP - per_group // _INODES_PER_BLOCK - 2
        least = ((inodes - 1) // per_group * data_blocks + 1) & _MASK32
        groups = ((max(blocks, least) + data_blocks - 1) & _MASK32) // data_blocks
        if groups < best:
            best, best_per_group = groups, per_group
    return best, best_per_group


def _write_table(inodes: list[Inode | None], sink: BlockSink, capacity: int) -> None:
    empty = bytes(ino.SIZE)
    for start in range(0, len(inodes), _TABLE_PIECE):
        piece = inodes[start : start + _TABLE_PIECE]
        sink.append_padded(b"".join(node.pack() if node is not None else empty for node in piece))
    written = -(-len(inodes) // _INODES_PER_BLOCK)
    sink.append_zeros(capacity // _INODES_PER_BLOCK - written)


def _directories_per_group(inodes: list[Inode | None], groups: int, per_group: int) -> list[int]:
    counts = [0] * groups
    for node in inodes:
        if node is not None and node.is_directory:
            counts[(node.number - 1) // per_group] += 1
    return counts


def _block_bitmap(group: int, used: int, total: int, unused_descriptors: int, used_descriptors: int) -> int:
    """The bitmap of one group as an integer: bit n is block n of the group."""
    bitmap = (1 << min(max(used - group * _GROUP, 0), _GROUP)) - 1
    if group == 0:
        bitmap &= ~(((1 << unused_descriptors) - 1) << (1 + used_descriptors))
    if total <= (group + 1) * _GROUP and total % _GROUP:
        present = total % _GROUP
        bitmap |= ((1 << _GROUP) - 1) & ~((1 << present) - 1)
    return bitmap


def _superblock(inodes: int, blocks: int, free_blocks: int, free_inodes: int, per_group: int) -> bytes:
    block = bytearray(BLOCK)

    def put(offset: int, size: int, value: int) -> None:
        block[1024 + offset : 1024 + offset + size] = value.to_bytes(size, "little")

    put(0x00, 4, inodes & _MASK32)
    put(0x04, 4, blocks & _MASK32)
    put(0x0C, 4, free_blocks)
    put(0x10, 4, free_inodes & _MASK32)
    put(0x18, 4, 2)  # block size 4096
    put(0x1C, 4, 2)  # cluster size likewise
    put(0x20, 4, _GROUP)
    put(0x24, 4, _GROUP)
    put(0x28, 4, per_group)
    put(0x38, 2, 0xEF53)
    put(0x3A, 2, 1)  # cleanly unmounted
    put(0x3C, 2, 1)  # on errors: continue
    put(0x4C, 4, 1)  # revision with dynamic inode sizes
    put(0x54, 4, ino.FIRST_FREE)
    put(0x58, 2, ino.SIZE)
    put(0x5C, 4, 0x208)  # ext_attr, sparse_super2
    put(0x60, 4, 0x242)  # filetype, extents, flex_bg
    put(0x64, 4, 0x104A)  # large_file, huge_file, extra_isize, read-only
    put(0x15C, 2, 24)
    put(0x15E, 2, 24)
    put(0x174, 1, 31)
    put(0x268, 4, ino.FIRST_FREE)  # lost+found
    return bytes(block)
