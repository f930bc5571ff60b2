# SPDX-License-Identifier: Apache-2.0
"""The part of the FUSE wire format that a character device in user space (CUSE) needs, as pure functions.

Source: Linux ``include/uapi/linux/fuse.h``. Requests come from the kernel, but what is inside of them (ioctl numbers,
addresses, data) is the caller's. All numbers are little endian.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from parma_wire.errors import Malformed

OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
RELEASE: Final = 18
IOCTL: Final = 39
CUSE_INIT: Final = 4096

VERSION: Final = (7, 31)
"""Protocol version: old enough for every kernel that has configfs-tsm, and has all that is used here."""

MAX_REQUEST: Final = 64 * 1024
"""Buffer for one request, in bytes; the kernel wants 8192 and room for what it was told it may send."""
MAX_TRANSFER: Final = 4096
"""Bytes of one read or write call on the device; both are refused anyway."""

_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_CUSE_INIT_IN: Final = struct.Struct("<IIII")
_CUSE_INIT_OUT: Final = struct.Struct("<IIIIIIII40x")
_OPEN_OUT: Final = struct.Struct("<QII")
_IOCTL_IN: Final = struct.Struct("<QIIQII")
_IOCTL_OUT: Final = struct.Struct("<iIII")
_IOVEC: Final = struct.Struct("<QQ")

_UNRESTRICTED_IOCTL: Final = 1
_IOCTL_RETRY: Final = 1 << 2


class Request(NamedTuple):
    """``struct fuse_in_header`` and what follows it."""

    opcode: int
    unique: int
    body: bytes


class Ioctl(NamedTuple):
    """``struct fuse_ioctl_in``; ``argument`` is the address that the caller gave."""

    command: int
    argument: int
    data: bytes
    out_size: int


class Range(NamedTuple):
    """Bytes in the caller's memory: ``struct fuse_ioctl_iovec``."""

    address: int
    length: int


def parse(message: bytes) -> Request:
    """One message of the kernel's. Raises `Malformed`."""
    if len(message) < _IN.size:
        raise Malformed("a FUSE message is too short")
    length, opcode, unique, _node, _uid, _gid, _pid, _extension, _ = _IN.unpack_from(message)
    if length != len(message):
        raise Malformed("a FUSE message has a bad length")
    return Request(opcode, unique, message[_IN.size :])


def parse_ioctl(body: bytes) -> Ioctl:
    """The body of an ioctl request. Raises `Malformed`."""
    if len(body) < _IOCTL_IN.size:
        raise Malformed("a FUSE ioctl is too short")
    _handle, _flags, command, argument, in_size, out_size = _IOCTL_IN.unpack_from(body)
    data = body[_IOCTL_IN.size :]
    if len(data) != in_size:
        raise Malformed("a FUSE ioctl has a bad length")
    return Ioctl(command, argument, data, out_size)


def reply(unique: int, body: bytes = b"") -> bytes:
    """A good answer."""
    return _OUT.pack(_OUT.size + len(body), 0, unique) + body


def failure(unique: int, number: int) -> bytes:
    """The request fails with this errno."""
    return _OUT.pack(_OUT.size, -number, unique)


def cuse_init_reply(request: Request, name: str) -> bytes:
    """Accepts the device and names it. Unrestricted ioctls: we say which of the caller's memory an ioctl concerns.

    Raises `Malformed` for another request, or a kernel that is too old.
    """
    if request.opcode != CUSE_INIT or len(request.body) < _CUSE_INIT_IN.size:
        raise Malformed("the first message of CUSE is another one than expected")
    major, minor, _unused, flags = _CUSE_INIT_IN.unpack_from(request.body)
    if (major, minor) < VERSION or not flags & _UNRESTRICTED_IOCTL:
        raise Malformed("the kernel's CUSE is too old", expected=f"FUSE {VERSION[0]}.{VERSION[1]}")
    body = _CUSE_INIT_OUT.pack(*VERSION, 0, _UNRESTRICTED_IOCTL, MAX_TRANSFER, MAX_TRANSFER, 0, 0)
    return reply(request.unique, body + f"DEVNAME={name}\0".encode())


def open_reply(unique: int) -> bytes:
    """The device is open; there is nothing to remember about it."""
    return reply(unique, _OPEN_OUT.pack(0, 0, 0))


def ioctl_reply(unique: int, result: int, data: bytes = b"") -> bytes:
    """The ioctl returns ``result`` (a negative errno for a failure); ``data`` goes to the ranges of the last retry."""
    return reply(unique, _IOCTL_OUT.pack(result, 0, 0, 0) + data)


def ioctl_retry(unique: int, reads: tuple[Range, ...], writes: tuple[Range, ...]) -> bytes:
    """Asks for the ioctl once more, with the caller's bytes in ``reads`` and room for those in ``writes``."""
    ranges = b"".join(_IOVEC.pack(*item) for item in (*reads, *writes))
    return reply(unique, _IOCTL_OUT.pack(0, _IOCTL_RETRY, len(reads), len(writes)) + ranges)
