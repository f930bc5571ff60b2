# SPDX-License-Identifier: Apache-2.0
"""Writing tars byte by byte, wrong ones too. Nothing here uses the reader under test."""

from __future__ import annotations

from collections.abc import Iterable

END = bytes(1024)


def padded(data: bytes) -> bytes:
    """``data`` filled up to whole 512-byte blocks."""
    return data + bytes(-len(data) % 512)


def octal(value: int, width: int) -> bytes:
    """A numeric field: octal where it fits, else base-256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return base256(value, width)


def base256(value: int, width: int) -> bytes:
    """A numeric field in two's complement with the first bit set."""
    field = bytearray((value % (1 << (8 * width))).to_bytes(width, "big"))
    field[0] |= 0x80
    return bytes(field)


def sealed(block: bytes | bytearray) -> bytes:
    """The header with its checksum."""
    out = bytearray(block)
    out[148:156] = b" " * 8
    out[148:156] = b"%06o\0 " % sum(out)
    return bytes(out)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    patches: Iterable[tuple[int, bytes]] = (),
) -> bytes:
    """One header block. ``patches`` are (offset, bytes) put in before the checksum is made."""
    block = bytearray(512)
    fields = [
        (0, name[:100]), (100, octal(mode, 8)), (108, octal(uid, 8)), (116, octal(gid, 8)), (124, octal(size, 12)),
        (136, octal(mtime, 12)), (156, kind), (157, link[:100]), (257, magic),
    ]  # fmt: skip
    if magic:
        fields += [(329, octal(major, 8)), (337, octal(minor, 8))]
    for offset, data in (*fields, (345, prefix), *patches):
        block[offset : offset + len(data)] = data
    return sealed(block)


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """A regular file with its contents."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **fields: object) -> bytes:
    return header(name, b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    return long_link(target) + header(name, b"2", link=target, mode=0o777, **fields)  # type: ignore[arg-type]


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def long_name(name: bytes) -> bytes:
    """A GNU long name for the next entry."""
    data = name + b"\0"
    return header(b"././@LongLink", b"L", size=len(data), magic=b"ustar  \0") + padded(data)


def long_link(target: bytes) -> bytes:
    """A GNU long link target for the next entry, where it is needed."""
    if len(target) <= 100:
        return b""
    data = target + b"\0"
    return header(b"././@LongLink", b"K", size=len(data), magic=b"ustar  \0") + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record."""
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    if len(str(total)) != len(str(length)):
        total = length + len(str(total))
    return b"%d %b=%b\n" % (total, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header for the next entry."""
    return raw_pax(b"".join(record(key, value) for key, value in records), kind)


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    return header(b"pax", kind, size=len(data)) + padded(data)


def xattrs(*attributes: tuple[bytes, bytes]) -> bytes:
    return pax(*((b"SCHILY.xattr." + name, value) for name, value in attributes))
