# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: whatever it says, a command ends in an answer or in one of our errors, and little is kept."""

from __future__ import annotations

import contextlib
import socket
import time

from parma_shim.vm.qmp import Qmp
from parma_wire.errors import DeadlineExceeded, ParmaError

_GREETING = b'{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": ["oob"]}}\r\n'
_HELLO = _GREETING + b'{"return": {}, "id": 1}\r\n'
SEEDS = [
    _HELLO + b'{"return": {"fdset-id": 1, "fd": 7}, "id": 2}\n',
    _HELLO + b'{"event": "DEVICE_DELETED", "data": {"device": "d"}}\n{"error": {"class": "X"}, "id": 2}\n',
    _HELLO + b'{"event": "SHUTDOWN"}\n\n{"return": null, "id": 77}\n{"return": [], "id": 2}\n',
    _HELLO + b'{"error": "nonsense", "id": 2}\n',
    _GREETING + b"[" * 100 + b"\n",
]
_PATIENCE = 60.0


def target(data: bytes) -> None:
    """Greeting, one command, one event; then QEMU is gone."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(theirs):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        qmp = Qmp(ours)
        deadline = time.monotonic() + _PATIENCE
        try:
            for step in (
                lambda: qmp.negotiate(deadline=deadline),
                lambda: qmp.execute("query-status", {"a": 1}, deadline=deadline),
                lambda: qmp.wait_event("DEVICE_DELETED", deadline=deadline, device="d"),
            ):
                try:
                    step()
                except DeadlineExceeded as error:
                    raise AssertionError("it waited for what is gone") from error
                except ParmaError:
                    continue
        finally:
            qmp.close()
    assert len(qmp._events) <= 64
    assert len(qmp._received) <= len(data)
