# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH108, PTH109, SIM105
# Tier 0: importing pathlib and contextlib takes longer than all that is done here.
"""``delete``: undo whatever a shim left, and say how its task ended (tier 0).

containerd runs it after every disconnect, even after a clean shutdown, and waits for it; for containers of a pod it
runs once each while the pod's virtual machine lives. So only the bundle whose ``start`` created the daemon has
something to undo, and with nothing left nothing is imported.
"""

import os
import select
import sys
import time

from . import bundle, fields, sockets
from .flags import Invocation

KILLED = 137
_END_MS = 2000  # how long a killed shim may take to disappear; containerd gives `delete` 5 s


def run(call: Invocation) -> bytes:
    """Cleans up and returns the ``containerd.task.v3.DeleteResponse`` to print. Safe to repeat.

    Raises:
        Malformed: no -id.
        OSError, ParmaError: something could not be removed.
    """
    call.require("id")
    here = call.get("bundle") or os.getcwd()
    state = bundle.read_state(here)
    if state is not None:
        _undo(state)
        _unlink(f"{here}/{bundle.STATE}")
    # An exit that was reported is not reported again as another one.
    ended = bundle.read_exit(here) or (state.task_pid if state else 0, KILLED, time.time_ns())
    pid, status, exited_at_ns = ended
    seconds, nanoseconds = divmod(exited_at_ns, 1_000_000_000)
    exited_at = fields.integer_field(1, seconds) + fields.integer_field(2, nanoseconds)
    return fields.integer_field(1, pid) + fields.integer_field(2, status) + fields.bytes_field(3, exited_at)


def _undo(state: bundle.State) -> None:
    _end_process(state.pid, state.started)
    if state.directory and os.path.lexists(state.directory):
        from .farewell import start_from
        from .vm.cleanup import destroy_leftovers

        try:
            start_from(sys.executable, state.directory)
        except OSError:
            pass  # labels may stay as they were; what is below may not
        destroy_leftovers(state.directory, state.pid)
    if state.socket:
        sockets.remove_if_dead(state.socket)


def _end_process(pid: int, started: int) -> None:
    """Kills the daemon, and only it: a number alone may meanwhile belong to somebody else."""
    if pid <= 1 or not started:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if bundle.start_time(pid) != started:
            return
        os.kill(pid, 9)  # cannot have been reused since the check: the handle was open before it
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(_END_MS)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
