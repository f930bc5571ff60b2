# SPDX-License-Identifier: Apache-2.0
"""Loads the kernel modules of the guest image, in the order that the image builder worked out.

There is no modprobe in the image. The list has one module per line, a path below the module folder, each after
everything it depends on. A path may be followed by ``optional`` (this machine may have no such device),
``cpu:FLAG`` (of use only where /proc/cpuinfo has that flag), ``pci:VENDOR:DEVICE`` (only where there is one) or
``tee:NAME`` (only in a guest that was started for it).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import Final

from parma_wire.errors import Malformed, Unavailable

MODULES_LIST: Final = Path("/usr/lib/parma/modules.list")
MODULES_DIRECTORY: Final = Path("/usr/lib/modules")
CPUINFO: Final = Path("/proc/cpuinfo")
PCI: Final = Path("/sys/bus/pci/devices")

_SYS_FINIT_MODULE: Final = 313  # x86-64
_CONDITION: Final = re.compile(r"|optional|cpu:[a-z0-9_]+|pci:[0-9a-f]{4}:[0-9a-f]{4}|tee:[a-z]+")
_ABSENT: Final = frozenset((errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP))


def parse(text: str) -> list[tuple[str, str]]:
    """``(path, condition)`` for each line of a modules list. Malformed for anything but a plain relative path."""
    entries = []
    for line in text.splitlines():
        path, _, condition = line.partition(" ")
        if not path.endswith(".ko") or path.startswith("/") or ".." in path or not _CONDITION.fullmatch(condition):
            raise Malformed(f"bad line in the modules list: {line!r}", expected="PATH.ko [CONDITION]")
        entries.append((path, condition))
    return entries


def load_modules(
    tee: str,
    list_path: Path = MODULES_LIST,
    directory: Path = MODULES_DIRECTORY,
    cpuinfo: Path = CPUINFO,
    pci: Path = PCI,
) -> list[str]:
    """Loads every module of the list; returns the names of those that this machine has no use for.

    Needs /proc and /sys. Raises Unavailable with the module's name when one cannot be loaded that should.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    present = {f"cpu:{flag}" for flag in cpu_flags(cpuinfo.read_text(encoding="ascii", errors="replace"))}
    present |= {f"pci:{device}" for device in pci_devices(pci)} | {f"tee:{tee}"}
    skipped = []
    for path, condition in parse(list_path.read_text(encoding="ascii")):
        if condition.startswith(("cpu:", "pci:", "tee:")) and condition not in present:
            skipped.append(Path(path).stem)
            continue
        error = _load(libc, directory / path)
        if error in (0, errno.EEXIST):
            continue
        if not condition or error not in _ABSENT:
            raise Unavailable(f"kernel module {path} cannot be loaded: {os.strerror(error)}")
        skipped.append(Path(path).stem)
    return skipped


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags of the first CPU in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def pci_devices(directory: Path) -> frozenset[str]:
    """``VENDOR:DEVICE`` of every PCI device, four hexadecimal digits each."""
    return frozenset(
        ":".join((device / name).read_text().strip().removeprefix("0x") for name in ("vendor", "device"))
        for device in directory.glob("*")
    )


def _load(libc: ctypes.CDLL, path: Path) -> int:
    """finit_module(2); the errno, or 0."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        if libc.syscall(ctypes.c_long(_SYS_FINIT_MODULE), ctypes.c_int(descriptor), b"", ctypes.c_int(0)) == 0:
            return 0
        return ctypes.get_errno()
    finally:
        os.close(descriptor)
