# SPDX-License-Identifier: Apache-2.0
"""Extended attributes: where each goes, and the bytes of the inode area and the block (notes, section 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from parma_policy.layers import gosort
from parma_policy.layers.errors import Kind, LayerError, printable
from parma_policy.layers.verity import BLOCK

INODE_AREA: Final = 104
"""Bytes for attributes at the end of an inode."""

OPAQUE: Final = b"trusted.overlay.opaque"
_MAGIC: Final = 0xEA020000
_INODE_HEADER: Final = 4
_BLOCK_HEADER: Final = 32
_INODE_ROOM: Final = INODE_AREA - _INODE_HEADER - 4
_BLOCK_ROOM: Final = BLOCK - _BLOCK_HEADER - 4
_ENTRY: Final = struct.Struct("<BBHIII")
_MAX_NAME: Final = 255
_MAX_READABLE_NAME: Final = 239
_MASK32: Final = 0xFFFFFFFF

# Order matters: the first prefix that fits is used.
_PREFIXES: Final = (
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (8, b"system.richacl"),
    (7, b"system."),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
)


class Xattr(NamedTuple):
    """One attribute as stored: the number of its prefix and the rest of its name."""

    prefix: int
    name: bytes
    value: bytes
    full_name: bytes

    @property
    def entry_size(self) -> int:
        return 16 + (len(self.name) + 3 & ~3)

    @property
    def value_size(self) -> int:
        return len(self.value) + 3 & ~3


class Placed(NamedTuple):
    """The attributes of one inode, by where they are, in storage order."""

    inode: tuple[Xattr, ...] = ()
    block: tuple[Xattr, ...] = ()


NOTHING: Final = Placed()


def place(attributes: Mapping[bytes, bytes]) -> Placed:
    """Distribute attributes over inode area and block. LayerError XATTR_TOO_BIG when they do not fit."""
    if not attributes:
        return NOTHING
    inode: list[Xattr] = []
    block: list[Xattr] = []
    inode_left, block_left = _INODE_ROOM, _BLOCK_ROOM
    for name in sorted(attributes):
        attribute = _stored(name, attributes[name])
        cost = attribute.entry_size + attribute.value_size
        if cost <= inode_left:
            inode.append(attribute)
            inode_left -= cost
        elif cost <= block_left:
            block.append(attribute)
            block_left -= cost
        else:
            raise LayerError(Kind.XATTR_TOO_BIG, f"extended attribute {printable(name)} does not fit")
        if len(attribute.name) > _MAX_NAME:
            raise LayerError(Kind.XATTR_TOO_BIG, f"the name of extended attribute {printable(name)} is too long")
    gosort.sort(block, _before)
    return Placed(tuple(inode), tuple(block))


def _stored(name: bytes, value: bytes) -> Xattr:
    for index, prefix in _PREFIXES:
        if name.startswith(prefix):
            return Xattr(index, name[len(prefix) :], value, name)
    return Xattr(0, name, value, name)


def _before(a: Xattr, b: Xattr) -> bool:
    """The reference's comparison. It is not transitive, hence ``gosort``."""
    return a.prefix < b.prefix or len(a.name) < len(b.name) or a.name < b.name


def readable(area: Iterable[Xattr]) -> dict[bytes, bytes]:
    """What the reference finds when it reads an area back: it stops at the first empty short name.

    That loses attributes after a POSIX ACL. It is part of what the root hashes mean.
    """
    found: dict[bytes, bytes] = {}
    for attribute in area:
        if not attribute.name:
            break
        if len(attribute.name) > _MAX_READABLE_NAME:
            # The reference crashes on these, so there is no hash to agree with.
            raise LayerError(Kind.XATTR_TOO_BIG, f"cannot merge extended attribute {printable(attribute.full_name)}")
        found[attribute.full_name] = attribute.value
    return found


def inode_area(area: tuple[Xattr, ...]) -> bytes:
    """The bytes at the end of the inode, without trailing zeros being cut."""
    body = _encode(area, INODE_AREA - _INODE_HEADER, 0)
    return _MAGIC.to_bytes(_INODE_HEADER, "little") + body


def block(area: tuple[Xattr, ...]) -> bytes:
    """The attribute block."""
    header = struct.pack("<III", _MAGIC, 1, 1).ljust(_BLOCK_HEADER, b"\0")
    return header + _encode(area, BLOCK - _BLOCK_HEADER, _BLOCK_HEADER)


def _encode(area: tuple[Xattr, ...], size: int, offset_base: int) -> bytes:
    body = bytearray(size)
    at, end = 0, size
    for attribute in area:
        end -= attribute.value_size
        value_hash = _hash(attribute.name, attribute.value)
        offset = end + offset_base
        _ENTRY.pack_into(body, at, len(attribute.name), attribute.prefix, offset, 0, len(attribute.value), value_hash)
        body[at + 16 : at + 16 + len(attribute.name)] = attribute.name
        body[end : end + len(attribute.value)] = attribute.value
        at += attribute.entry_size
    return bytes(body)


def _hash(name: bytes, value: bytes) -> int:
    result = 0
    for byte in name:
        result = ((result << 5) & _MASK32) ^ (result >> 27) ^ byte
    padded = value + bytes(-len(value) % 4)
    for (word,) in struct.iter_unpack("<I", padded):
        result = ((result << 16) & _MASK32) ^ (result >> 16) ^ word
    return result
