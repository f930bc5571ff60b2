# SPDX-License-Identifier: Apache-2.0
"""The device mapper's ioctl interface, as far as the enforcer needs it: create, status, remove.

Spoken directly rather than through dmsetup: one process less per device, no text parser, and a key in a table
never passes through another program. Layout: Linux ``include/uapi/linux/dm-ioctl.h``, interface version 4.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from parma_wire.errors import Unavailable

CONTROL: Final = "/dev/mapper/control"

_HEADER: Final = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET: Final = struct.Struct("=QQiI16s")
_BUFFER: Final = 16 * 1024
_DEV_CREATE: Final = 3
_DEV_REMOVE: Final = 4
_DEV_SUSPEND: Final = 6
_TABLE_LOAD: Final = 9
_TABLE_STATUS: Final = 12
_READONLY: Final = 1 << 0
_SECURE_DATA: Final = 1 << 15
_REMOVE_ATTEMPTS: Final = 50
_REMOVE_PAUSE: Final = 0.02  # seconds; a just finished reader may hold the device for a moment


class Target(NamedTuple):
    """One line of a table; ``length`` in sectors of 512 bytes. ``repr`` hides the parameters, they may hold a key."""

    length: int
    type: str
    parameters: str

    def __repr__(self) -> str:
        return f"Target({self.length}, {self.type!r})"


class DeviceMapper:
    """The kernel's device mapper. Methods raise `Unavailable`."""

    def create(self, name: str, targets: Sequence[Target], *, readonly: bool) -> str:
        """Makes the device and returns its path; leaves nothing behind when it fails."""
        flags = _SECURE_DATA | (_READONLY if readonly else 0)
        device = self._request(_DEV_CREATE, name, flags)[0]
        try:
            self._request(_TABLE_LOAD, name, flags, targets)
            self._request(_DEV_SUSPEND, name, flags)  # without the suspend flag this resumes: the table goes live
        except Unavailable:
            self.remove(name)
            raise
        minor = (device & 0xFF) | ((device >> 12) & 0xFFF00)
        return f"/dev/dm-{minor}"

    def status(self, name: str) -> str:
        """The status text of the device's only target."""
        _device, data = self._request(_TABLE_STATUS, name, 0)
        return data[_TARGET.size :].split(b"\0", 1)[0].decode()

    def remove(self, name: str) -> None:
        """Removes the device, waiting up to a second for its last user."""
        for attempt in range(_REMOVE_ATTEMPTS):
            try:
                self._request(_DEV_REMOVE, name, 0)
            except Unavailable as error:
                cause = error.__cause__
                busy = isinstance(cause, OSError) and cause.errno == errno.EBUSY
                if not busy or attempt == _REMOVE_ATTEMPTS - 1:
                    raise
                time.sleep(_REMOVE_PAUSE)
            else:
                return

    def _request(self, number: int, name: str, flags: int, targets: Sequence[Target] = ()) -> tuple[int, bytes]:
        body = b"".join(_encode(target) for target in targets)
        buffer = bytearray(max(_BUFFER, _HEADER.size + len(body)))
        _HEADER.pack_into(
            buffer, 0, 4, 0, 0, len(buffer), _HEADER.size, len(targets), 0, flags, 0, 0, 0, name.encode(), b""
        )
        buffer[_HEADER.size : _HEADER.size + len(body)] = body
        request = (3 << 30) | (_HEADER.size << 16) | (0xFD << 8) | number
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, request, buffer, True)
            device: int = _HEADER.unpack_from(buffer)[10]
            start: int = _HEADER.unpack_from(buffer)[4]
            return device, bytes(buffer[start:])
        except OSError as error:
            raise Unavailable(f"device mapper refused {name}: {error.strerror}") from error
        finally:
            buffer[:] = bytes(len(buffer))  # a table may hold a key
            os.close(control)


def _encode(target: Target) -> bytes:
    text = target.parameters.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return _TARGET.pack(0, target.length, 0, _TARGET.size + len(text), target.type.encode()) + text
