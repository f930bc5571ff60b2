# SPDX-License-Identifier: Apache-2.0
"""What is going on while ``ctr run`` is silent: a virtual machine boots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parma_wire.limits import READY_LINE

_EVERY = 5.0
"""Seconds between two lines."""


class BootProgress:
    """Follows the next virtual machine of a host by the files that its shim keeps of it."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._known = set(state_dir.glob("*"))
        self._machine: Path | None = None
        self._began = self._said = 0.0
        self._ready = False

    def look(self, now: float) -> list[str]:
        """What is new, as lines. ``now`` in seconds of any clock that does not go back."""
        if self._ready:
            return []
        if self._machine is None:
            new = [console for console in self._state_dir.glob("*/console.log") if console.parent not in self._known]
            if not new:
                return []
            self._machine, self._began, self._said = new[0], now, now
            return ["a virtual machine starts"]
        if READY_LINE in _text(self._machine):
            self._ready = True
            return [f"it has booted after {now - self._began:.0f} s; policy, evidence, layers, container"]
        if now - self._said < _EVERY:
            return []
        self._said = now
        return [f"it boots: {now - self._began:.0f} s"]


@contextmanager
def shown(state_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Says how far the virtual machine is that is started meanwhile."""
    progress = BootProgress(state_dir)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for line in progress.look(time.monotonic()):
                say(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""  # the machine has gone
