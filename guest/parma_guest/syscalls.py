# SPDX-License-Identifier: Apache-2.0
"""System calls that Python has no function for, and nothing else.

`Kernel` is what the rest of the enforcer takes as an argument, so that tests can pass a fake.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOATIME: Final = 1 << 10
MS_BIND: Final = 1 << 12
MS_MOVE: Final = 1 << 13
MS_REC: Final = 1 << 14
MS_PRIVATE: Final = 1 << 18
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24

MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_SYS_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_IN_ROOT: Final = 0x10
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_MOUNT_SETATTR: Final = 442
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_MOUNT_ATTR_RDONLY: Final = 0x1
_MOUNT_ATTR_IDMAP: Final = 0x100000
_RB_POWER_OFF: Final = 0x4321FEDC
_RB_AUTOBOOT: Final = 0x01234567
_ACPI: Final = Path("/sys/firmware/acpi")
_BLKGETSIZE64: Final = 0x80081272
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_CLONE_NEWNET: Final = 0x40000000


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class Kernel:
    """The running kernel. Every method raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        """mount(2); no text of it may come from the host."""
        arguments = [text.encode() or None for text in (source, target, fstype)]
        result = self._libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None)
        self._check(result, target)

    def read_head(self, device: str, size: int) -> bytes:
        """The first bytes of a block device."""
        with open(device, "rb", buffering=0) as file:
            return file.read(size)

    def unmount(self, target: str) -> None:
        """umount2(2) of exactly this mount point: a symbolic link in its place is an error."""
        self._check(self._libc.umount2(target.encode(), UMOUNT_NOFOLLOW), target)

    def mount_idmapped(self, source: str, target: str, namespace: int) -> None:
        """Mounts what is at ``source`` once more, read-only, seen through the user namespace of the descriptor."""
        clone = self._libc.syscall(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(_AT_FDCWD),
            source.encode(),
            ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC),
        )
        self._check(min(clone, 0), source)
        try:
            wanted = _MountAttributes(_MOUNT_ATTR_IDMAP | _MOUNT_ATTR_RDONLY, 0, 0, namespace)
            result = self._libc.syscall(
                ctypes.c_long(_SYS_MOUNT_SETATTR),
                ctypes.c_int(clone),
                b"",
                ctypes.c_uint(_AT_EMPTY_PATH),
                ctypes.byref(wanted),
                ctypes.c_size_t(ctypes.sizeof(wanted)),
            )
            self._check(result, source)
            result = self._libc.syscall(
                ctypes.c_long(_SYS_MOVE_MOUNT),
                ctypes.c_int(clone),
                b"",
                ctypes.c_int(_AT_FDCWD),
                target.encode(),
                ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
            )
            self._check(result, target)
        finally:
            os.close(clone)

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """chown(2), not through a symbolic link."""
        os.chown(path, uid, gid, follow_symlinks=False)

    def unmount_tree(self, target: str) -> None:
        """The same, with whatever is mounted below it."""
        self._check(self._libc.umount2(target.encode(), UMOUNT_NOFOLLOW | MNT_DETACH), target)

    def make_directory(self, path: str, mode: int) -> None:
        """With its parents; nothing happens when it exists."""
        Path(path).mkdir(mode=mode, parents=True, exist_ok=True)

    def power_off(self) -> None:
        """Ends the VM at once.

        Without ACPI Linux cannot switch a machine off, but would halt it and leave it there. A restart ends it as well:
        QEMU has `-no-reboot`, and a processor whose registers are encrypted cannot be reset.
        """
        self._libc.reboot(_RB_POWER_OFF if _ACPI.exists() else _RB_AUTOBOOT)

    def open_in_root(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` as a process would whose root directory is ``root``: symbolic links stay inside."""
        return self._openat2(root, path, flags | os.O_NONBLOCK, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` below ``root``; any symbolic link on the way is an error."""
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
        return self._openat2(root, path, flags, resolve)

    def block_device_size(self, path: str) -> int:
        """Bytes."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(struct.unpack("Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))[0])
        finally:
            os.close(descriptor)

    def loopback_up(self) -> None:
        """Brings ``lo`` of the calling thread's network namespace up."""
        import socket  # only at boot

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            request = struct.pack("16sh22x", b"lo", 0)
            (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))

    def leave_network(self) -> None:
        """Moves the calling thread, and only that, to a new network namespace."""
        self._check(self._libc.unshare(ctypes.c_int(_CLONE_NEWNET)), "network namespace")

    def enter_network(self, namespace: int) -> None:
        """Moves the calling thread, and only that, to the network namespace that this descriptor is of."""
        self._check(self._libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)), "network namespace")

    def _openat2(self, root: str, path: str, flags: int, resolve: int) -> int:
        # openat2 refuses flags that mean nothing together with O_PATH.
        how = _OpenHow(flags | os.O_CLOEXEC | (0 if flags & os.O_PATH else os.O_NOCTTY), 0, resolve)
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            result: int = self._libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        finally:
            number = ctypes.get_errno()
            os.close(directory)
        if result < 0:
            raise OSError(number, os.strerror(number), path)
        return result

    def _check(self, result: int, path: str) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
