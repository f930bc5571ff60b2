# SPDX-License-Identifier: Apache-2.0
"""Children of process 1: programs it starts, container processes it inherits from crun, and orphans.

Exactly one thread reaps. Nothing else in the enforcer may wait for a child (so no ``subprocess``), or an exit
status could be taken from its owner.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_MAX_ORPHANS: Final = 4096

WaitAny = Callable[[], tuple[int, int] | None]
"""Reaps one child: (pid, exit status), or None when there are no children."""


def wait_any() -> tuple[int, int] | None:
    """`WaitAny` of the running process. The status of a process killed by a signal is 128 + its number."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED)
    except ChildProcessError:
        return None
    if found is None:
        return None
    exited = found.si_code == os.CLD_EXITED
    return found.si_pid, found.si_status if exited else 128 + found.si_status


class Child:
    """A process whose exit status will be known once."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._exited = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[int], None]] = []
        self._status = -1

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, or None when it has not exited in time."""
        return self._status if self._exited.wait(timeout) else None

    @property
    def exited(self) -> bool:
        """True once the status is known."""
        return self._exited.is_set()

    def on_exit(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Calls back with the exit status, at once if it is known; otherwise on the reaper's thread.

        The function returned takes the callback back. Whoever stops caring calls it: a process can live for ever.
        """
        with self._lock:
            waiting = not self._exited.is_set()
            if waiting:
                self._callbacks.append(callback)
        if not waiting:
            callback(self._status)
        return lambda: self._forget(callback)

    def _forget(self, callback: Callable[[int], None]) -> None:
        with self._lock, contextlib.suppress(ValueError):  # it has been called
            self._callbacks.remove(callback)

    def finish(self, status: int) -> None:
        """For the reaper. Waiters see the status only after the callbacks have run."""
        self._status = status
        while True:
            with self._lock:
                if not self._callbacks:
                    self._exited.set()
                    return
                callback = self._callbacks.pop(0)
            callback(status)


class Reaper:
    """The thread that reaps, and the way to start programs."""

    def __init__(self, wait: WaitAny = wait_any) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._orphans: dict[int, int] = {}
        self._expecting = 0
        self._spawned = threading.Event()

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def spawn(self, arguments: Sequence[str], stdio: tuple[int, int, int]) -> Child:
        """Starts a program in a session of its own; ``stdio`` are the descriptors it gets as 0, 1 and 2."""
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(stdio)]
        with self._lock:
            pid = os.posix_spawn(
                arguments[0],
                list(arguments),
                ENVIRONMENT,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
            child = self._children[pid] = Child(pid)
        self._spawned.set()
        return child

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While this is active, the statuses of unknown children are kept, so that `adopt` can find them."""
        with self._lock:
            self._expecting += 1
        try:
            yield
        finally:
            with self._lock:
                self._expecting -= 1
                if not self._expecting:
                    self._orphans.clear()

    def adopt(self, pid: int) -> Child:
        """Takes over a grandchild whose parent has exited or will; only inside `expecting`."""
        with self._lock:
            child = Child(pid)
            status = self._orphans.pop(pid, None)
            if status is None:
                self._children[pid] = child
        if status is not None:
            child.finish(status)
        return child

    def _run(self) -> None:
        while True:
            found = self._wait()
            if found is None:
                self._spawned.wait()
                self._spawned.clear()
            else:
                self.reaped(*found)

    def reaped(self, pid: int, status: int) -> None:
        """Hands an exit status to its owner."""
        with self._lock:
            child = self._children.pop(pid, None)
            if child is None and self._expecting and len(self._orphans) < _MAX_ORPHANS:
                self._orphans[pid] = status
        if child is not None:
            child.finish(status)
