# SPDX-License-Identifier: Apache-2.0
"""Disks on the VM's SCSI bus: files go in as descriptors, so QEMU opens no path and an unlinked file serves as well.

Lock contract: ``Disks._lock`` guards the table of units only and is never held while QEMU is asked.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Final

from parma_shim.vm.command import SCSI_CONTROLLER
from parma_shim.vm.qmp import Qmp, QmpError
from parma_wire.errors import NotFound, ParmaError, Unavailable

MAX_DISKS: Final = 255

_SURELY_NEEDED: Final = 64 << 20
"""Bytes of a scratch file that making its file system takes, about."""


class Disks:
    """Attached disks of one VM. Safe for several threads."""

    def __init__(self, monitor: Qmp) -> None:
        self._monitor: Final = monitor
        self._lock: Final = threading.Lock()
        self._units: set[int] = set()

    def attach(self, fd: int, *, readonly: bool, deadline: float) -> int:
        """Attach an open file; returns its logical unit number. The caller keeps ``fd`` and may close it at once.

        Everything is undone when a step fails.
        """
        with self._lock:
            unit = next((number for number in range(MAX_DISKS) if number not in self._units), None)
            if unit is None:
                raise Unavailable(f"the VM has {MAX_DISKS} disks already")
            self._units.add(unit)
        try:
            self._attach(unit, fd, readonly, deadline)
        except BaseException:
            self._undo(unit, deadline)
            raise
        return unit

    def detach(self, unit: int, *, deadline: float) -> None:
        """Take a disk away and close its file. The guest must not be using it any more."""
        with self._lock:
            if unit not in self._units:
                raise NotFound(f"no disk {unit}")
        self._monitor.execute("device_del", {"id": _device(unit)}, deadline=deadline)
        self._monitor.wait_event("DEVICE_DELETED", device=_device(unit), deadline=deadline)
        self._monitor.execute("blockdev-del", {"node-name": _node(unit)}, deadline=deadline)
        self._monitor.execute("remove-fd", {"fdset-id": unit}, deadline=deadline)
        with self._lock:
            self._units.discard(unit)

    def _attach(self, unit: int, fd: int, readonly: bool, deadline: float) -> None:
        execute = self._monitor.execute
        execute("add-fd", {"fdset-id": unit}, deadline=deadline, descriptor=fd)
        file = {
            "driver": "file",
            "filename": f"/dev/fdset/{unit}",
            "read-only": readonly,
            # Layers are never written and scratch files have no name: a lock would protect nothing.
            "locking": "off",
        }
        if not readonly:
            file["discard"] = "unmap"
        node = {"driver": "raw", "node-name": _node(unit), "read-only": readonly, "file": file}
        if not readonly:
            node["discard"] = "unmap"
        execute("blockdev-add", node, deadline=deadline)
        device = {"driver": "scsi-hd", "id": _device(unit), "bus": f"{SCSI_CONTROLLER}.0", "drive": _node(unit)}
        if not readonly:
            # QEMU's own choice would be to stop the VM without a word when the host's disk is full.
            device["werror"] = "report"
        execute("device_add", {**device, "scsi-id": 0, "lun": unit}, deadline=deadline)

    def _undo(self, unit: int, deadline: float) -> None:
        """Steps that were not reached fail and do not matter; a unit that QEMU may still have stays taken."""
        for command, arguments in (
            ("device_del", {"id": _device(unit)}),
            ("blockdev-del", {"node-name": _node(unit)}),
            ("remove-fd", {"fdset-id": unit}),
        ):
            try:
                self._monitor.execute(command, arguments, deadline=deadline)
            except QmpError:
                continue
            except ParmaError:
                return
        with self._lock:
            self._units.discard(unit)


def open_readonly(path: Path) -> int:
    """A descriptor of a layer image. Raises NotFound or Unavailable."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"the layer image {path} is gone") from None
    except OSError as error:
        raise Unavailable(f"cannot open the layer image {path}: {error.strerror}") from error


def open_scratch(directory: Path, size: int) -> int:
    """A descriptor of a sparse file of ``size`` bytes without a name: nothing to remove, whatever dies.

    Raises Unavailable when the file system has no room for what is surely needed, or cannot do it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(directory, min(size, _SURELY_NEEDED))
        fd = _open_nameless(directory)
        try:
            os.ftruncate(fd, size)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise Unavailable(f"cannot make scratch space in {directory}: {error.strerror}") from error
    return fd


def _require_room(directory: Path, needed: int) -> None:
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise Unavailable(
            f"cannot make scratch space in {directory}: the disk is full",
            expected=f"{needed >> 20} MiB free, not {free >> 20}",
        )


def _open_nameless(directory: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    path = directory / f"scratch-{os.urandom(8).hex()}"
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return fd


def _node(unit: int) -> str:
    return f"disk{unit}"


def _device(unit: int) -> str:
    return f"unit{unit}"
