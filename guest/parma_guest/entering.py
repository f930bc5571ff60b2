# SPDX-License-Identifier: Apache-2.0
"""Processes on their way into a container: put there by crun, and not yet what was asked for.

What runs in the container can see such a process and, as the same user, stop it. crun waits for it, the enforcer for
crun, and the group for the enforcer. A process that still is crun has no reason to be stopped, so it may be killed.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from parma_guest.cgroups import Cgroup
from parma_wire.errors import NotFound

_PROC: Final = Path("/proc")
_STOPPED: Final = ("T", "t")
"""By a signal, and by whoever traces it: proc(5), /proc/pid/stat."""


Program = tuple[int, int]
"""A file that processes run, by device and inode: names are the container's to choose."""


def program(pid: int) -> Program | None:
    """What the process runs; None when it has ended."""
    try:
        found = (_PROC / str(pid) / "exe").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def kill(cgroup: Cgroup, crun: Program | None, *, stopped: bool) -> bool:
    """Kills those that have come into the cgroup and still run crun; True when there were any.

    ``stopped``: only those that somebody has stopped. Without a program nobody is looked at.
    """
    if crun is None:
        return False
    try:
        present = cgroup.pids()
    except NotFound:  # nobody has come that far
        return False
    killed = [_kill(pid, crun, stopped=stopped) for pid in present]
    return any(killed)


def _kill(pid: int, crun: Program, *, stopped: bool) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # it has ended
        return False
    try:
        # Looked at while it is held: whatever has the number now is what the signal reaches.
        if program(pid) != crun or (stopped and not _is_stopped(pid)):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    finally:
        os.close(pidfd)


def _is_stopped(pid: int) -> bool:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return text.rpartition(b") ")[2][:1].decode("ascii", "replace") in _STOPPED  # the name before may hold anything
