# SPDX-License-Identifier: Apache-2.0
"""Signals by name, and those that a container may always get."""

from __future__ import annotations

import signal
from typing import Final

from parma_wire.errors import Malformed

TERMINATING_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGKILL,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
)
"""Signals that end a process which does not handle them, of those that people send."""


def signal_number(name: str) -> int:
    """The number of a signal given as ``15``, ``TERM`` or ``SIGTERM``. Raises Malformed."""
    if name.isascii() and name.isdigit() and 1 <= int(name[:4]) <= 64:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    base, plus, offset = full.partition("+")
    if base == "SIGRTMIN" and plus and offset.isascii() and offset.isdigit() and int(offset[:3]) <= 30:
        return int(signal.SIGRTMIN) + int(offset)
    try:
        return int(signal.Signals[full])
    except KeyError:
        raise Malformed(f"unknown signal {name[:40]!r}", expected="a number, or a name like SIGTERM") from None


def allowed_signals(*more: int) -> tuple[int, ...]:
    """The terminating ones and ``more``, ascending, each once."""
    return tuple(sorted({*map(int, TERMINATING_SIGNALS), *more}))
