# SPDX-License-Identifier: Apache-2.0
"""Loads the kernel modules of the guest image, in the order that the image builder worked out.

There is no modprobe in the image. The list has one module per line, a path below the module folder, each after
everything it depends on; a module marked ``optional`` may say that this machine has no such device or CPU feature.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from parma_wire.errors import Malformed, Unavailable

MODULES_LIST: Final = Path("/usr/lib/parma/modules.list")
MODULES_DIRECTORY: Final = Path("/usr/lib/modules")

_SYS_FINIT_MODULE: Final = 313  # x86-64
_ABSENT: Final = frozenset((errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP))


def parse(text: str) -> list[tuple[str, bool]]:
    """``(path, optional)`` for each line of a modules list. Malformed for anything but a plain relative path."""
    entries = []
    for line in text.splitlines():
        path, _, flag = line.partition(" ")
        if not path.endswith(".ko") or path.startswith("/") or ".." in path or flag not in ("", "optional"):
            raise Malformed(f"bad line in the modules list: {line!r}", expected="PATH.ko [optional]")
        entries.append((path, flag == "optional"))
    return entries


def load_modules(list_path: Path = MODULES_LIST, directory: Path = MODULES_DIRECTORY) -> list[str]:
    """Loads every module of the list; returns the names of the optional ones that this machine has no use for.

    Raises Unavailable with the module's name when a needed one cannot be loaded.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    skipped = []
    for path, optional in parse(list_path.read_text(encoding="ascii")):
        error = _load(libc, directory / path)
        if error in (0, errno.EEXIST):
            continue
        if not optional or error not in _ABSENT:
            raise Unavailable(f"kernel module {path} cannot be loaded: {os.strerror(error)}")
        skipped.append(Path(path).stem)
    return skipped


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
