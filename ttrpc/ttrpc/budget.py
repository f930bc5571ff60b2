# SPDX-License-Identifier: Apache-2.0
"""A limit on bytes held, shared by threads."""

from __future__ import annotations

import threading


class Budget:
    """Counts bytes in use against a limit, and against that of its parent.

    What was reserved must be released exactly once.
    """

    def __init__(self, limit: int, parent: Budget | None = None) -> None:
        self._limit = limit
        self._used = 0
        self._parent = parent
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        return self._used

    def reserve(self, size: int) -> bool:
        """Takes ``size`` bytes if the limits allow it; otherwise takes nothing and returns False."""
        with self._lock:
            if self._used + size > self._limit:
                return False
            if self._parent is not None and not self._parent.reserve(size):
                return False
            self._used += size
            return True

    def release(self, size: int) -> None:
        """Gives ``size`` bytes back."""
        with self._lock:
            self._used -= size
        if self._parent is not None:
            self._parent.release(size)
