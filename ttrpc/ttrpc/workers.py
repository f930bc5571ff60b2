# SPDX-License-Identifier: Apache-2.0
"""Threads: started with a stack of a chosen size, and reused for the next job when there is one soon."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from ttrpc.errors import Status, TtrpcError

if TYPE_CHECKING:
    from collections.abc import Callable

STACK_SIZE: Final = 1984 * 1024
"""Bytes of stack of a thread that runs handlers.

Only pages that are used cost memory (an idle thread has 16 KiB resident whatever its stack size). The number is just
below a huge page, so that no kernel makes the stack one, and large enough for CPython 3.12 and 3.13 to reach their C
recursion limit (10,000 levels, as a nested JSON text does) without running out of stack: with 1,280 KiB they crash.
"""

READER_STACK_SIZE: Final = 256 * 1024
"""Bytes of stack of a thread that only cuts frames."""

IDLE_SECONDS: Final = 5.0

_stack_size_lock = threading.Lock()


def start_thread(run: Callable[[], None], name: str, stack_size: int) -> threading.Thread:
    """Starts a daemon thread. The stack size is a process-wide setting: it is set and put back around the start.

    Raises:
        TtrpcError: RESOURCE_EXHAUSTED when the system allows no further thread.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    with _stack_size_lock:
        previous = threading.stack_size(stack_size)
        try:
            thread.start()
        except RuntimeError as error:
            raise TtrpcError(Status.RESOURCE_EXHAUSTED, "no further thread can be started") from error
        finally:
            threading.stack_size(previous)
    return thread


class _Worker:
    """One idle or busy thread; ``wake`` is held while it has nothing to do."""

    __slots__ = ("job", "wake")

    def __init__(self, job: Callable[[], None] | None) -> None:
        self.job = job
        self.wake = threading.Lock()
        self.wake.acquire()


class Workers:
    """Runs jobs, each in a thread of its own.

    A thread that has finished waits :data:`IDLE_SECONDS` for another job; the one that finished last gets it, so that
    the others can end.
    """

    def __init__(self, limit: int, stack_size: int = STACK_SIZE) -> None:
        self._limit = limit
        self._stack_size = stack_size
        self._lock = threading.Lock()
        self._threads = 0
        self._idle: list[_Worker] = []

    @property
    def threads(self) -> int:
        """Threads that exist now, busy or idle."""
        return self._threads

    def submit(self, job: Callable[[], None]) -> None:
        """Runs ``job``, which must not raise, at once.

        Raises:
            TtrpcError: RESOURCE_EXHAUSTED when the limit is reached or no thread can be started.
        """
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
                worker.wake.release()
                return
            if self._threads >= self._limit:
                raise TtrpcError(Status.RESOURCE_EXHAUSTED, f"{self._limit} requests are being served already")
            self._threads += 1
        worker = _Worker(job)
        try:
            start_thread(lambda: self._work(worker), "ttrpc-worker", self._stack_size)
        except TtrpcError:
            with self._lock:
                self._threads -= 1
            raise

    def _work(self, worker: _Worker) -> None:
        while worker.job is not None:
            worker.job()
            worker.job = None  # frees what it holds while the thread is idle
            with self._lock:
                self._idle.append(worker)
            if not worker.wake.acquire(timeout=IDLE_SECONDS):
                self._retire(worker)

    def _retire(self, worker: _Worker) -> None:
        """Ends an idle thread, unless a job was handed to it just now."""
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                self._threads -= 1
                return
        worker.wake.acquire()
