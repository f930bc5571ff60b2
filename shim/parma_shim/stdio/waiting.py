# SPDX-License-Identifier: Apache-2.0
"""Waiting for a file descriptor without becoming unstoppable."""

from __future__ import annotations

import os
import select
import threading


class Stopper:
    """Ends waits, from any thread: every present and future :meth:`wait` returns ``False``."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self.stopped = False

    def stop(self) -> None:
        """Idempotent."""
        with self._lock:
            if not self.stopped:
                self.stopped = True
                os.eventfd_write(self._event, 1)

    def wait(self, descriptor: int, events: int, timeout: float | None = None) -> bool:
        """``True`` when ``descriptor`` is ready or broken; ``False`` when stopped or after ``timeout`` seconds."""
        if self.stopped:
            return False
        poll = select.poll()
        poll.register(descriptor, events)
        poll.register(self._event, select.POLLIN)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        return not self.stopped and descriptor in ready

    def fileno(self) -> int:
        """Readable once stopped; for a poll of one's own."""
        return self._event

    def close(self) -> None:
        """When nobody can be waiting any more."""
        with self._lock:
            self.stopped = True
            if self._event >= 0:
                os.close(self._event)
                self._event = -1
