# SPDX-License-Identifier: Apache-2.0
"""The daemon's main thread: waits for signals, for time to pass, and for work that only it may do.

The kernel's parent-death signal follows the *thread* that started a process. QEMU must not outlive the shim and must
not die before it, so it is started from the one thread that lives exactly as long: this one. Calling the loop runs a
function there.
"""

from __future__ import annotations

import collections
import contextlib
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

HANDLED: Final = (signal.SIGTERM, signal.SIGINT)
IGNORED: Final = (signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)


class MainLoop:
    """One per process, made in its main thread. Signals count from then on; they are dealt with in :meth:`run`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        # A socket pair and not a pipe: containerd's tests count pipes.
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._stopped = False
        self._install()

    def __call__(self, function: Callable[[], T], /) -> T:
        """Runs ``function`` in the main thread and returns its result or raises its exception."""
        if threading.get_ident() == self._thread:
            return function()
        done = threading.Lock()
        done.acquire()
        results: list[T] = []
        errors: list[BaseException] = []

        def job() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                errors.append(error)
            finally:
                done.release()

        self.post(job)
        done.acquire()
        if errors:
            raise errors[0]
        return results[0]

    def post(self, job: Callable[[], None]) -> None:
        """Queues a function for the main thread and returns at once. From any thread."""
        self._jobs.append(job)
        self._wake()

    def stop(self) -> None:
        """Lets :meth:`run` return after the work that is queued. From any thread."""
        self._stopped = True
        self._wake()

    def run(self, *, on_signal: Callable[[int], None], on_tick: Callable[[], None], period: float) -> None:
        """Runs until :meth:`stop`.

        Args:
            on_signal: called with the number of a signal of :data:`HANDLED`.
            on_tick: called about every ``period`` seconds.
        """
        waiting = select.poll()
        waiting.register(self._wake_receiver, select.POLLIN)
        while not self._stopped or self._jobs:
            if not waiting.poll(period * 1000) and not self._stopped:
                on_tick()
            for number in self._drain():
                if number in HANDLED:
                    on_signal(number)
            while self._jobs:
                self._jobs.popleft()()

    def close(self) -> None:
        """Gives the descriptors back; for tests, as a process's main loop lasts as long as it."""
        self._wake_receiver.close()
        self._wake_sender.close()

    def _install(self) -> None:
        for ignored in IGNORED:
            signal.signal(ignored, signal.SIG_IGN)
        for handled in HANDLED:
            signal.signal(handled, _do_nothing)  # the number arrives through the wake-up descriptor
        signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake up
            self._wake_sender.send(b"\0")

    def _drain(self) -> bytes:
        try:
            return self._wake_receiver.recv(4096)
        except BlockingIOError:
            return b""


def _do_nothing(_number: int, _frame: object) -> None:
    """A handler in Python is needed for the wake-up descriptor to be written."""
