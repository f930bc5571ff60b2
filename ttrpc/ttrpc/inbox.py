# SPDX-License-Identifier: Apache-2.0
"""The bounded queue between a connection's reader and the user of one stream."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from ttrpc.channel import remaining
from ttrpc.errors import Status, TtrpcError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MESSAGES: Final = 64
MAX_BYTES: Final = 256 * 1024
STALL: Final = 1.0
"""Seconds that a full inbox may hold up its connection before its stream is given up (as the Go implementation)."""


def _nothing(_size: int) -> None:
    pass


class Inbox:
    """Messages of one stream that have arrived and were not yet taken.

    Args:
        release: told the size of every message that leaves the inbox, by being taken or by being dropped.
    """

    def __init__(self, release: Callable[[int], None] = _nothing) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._error: TtrpcError | None = None
        self._release = release

    def put(self, message: bytes, stall: float = STALL) -> bool:
        """Adds a message; waits at most ``stall`` seconds for room.

        Returns:
            False when there was no room. The message is then dropped.
        """
        with self._changed:
            if self._changed.wait_for(self._has_room, stall):
                if self._error is None:
                    self._messages.append(message)
                    self._bytes += len(message)
                    self._changed.notify_all()
                    return True
                taken = True  # nobody wants it any more
            else:
                taken = False
        self._release(len(message))
        return taken

    def _has_room(self) -> bool:
        if not self._messages or self._error is not None:
            return True
        return len(self._messages) < MAX_MESSAGES and self._bytes < MAX_BYTES

    def end(self) -> None:
        """No message follows; those in the inbox can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether :meth:`end` or :meth:`fail` was called."""
        return self._ended or self._error is not None

    def fail(self, error: TtrpcError, *, drop: bool = True) -> None:
        """No message follows, for this reason; without ``drop`` those in the inbox can still be taken."""
        with self._changed:
            if self._error is not None:
                return
            self._error = error
            dropped = self._bytes if drop else 0
            if drop:
                self._messages.clear()
                self._bytes = 0
            self._changed.notify_all()
        if dropped:
            self._release(dropped)

    def get(self, deadline: float | None = None) -> bytes | None:
        """The next message, or ``None`` after the last one.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED when ``deadline`` passed; the error given to :meth:`fail`.
        """
        with self._changed:
            if not self._changed.wait_for(self._has_news, remaining(deadline)):
                raise TtrpcError(Status.DEADLINE_EXCEEDED, "timed out waiting for a message")
            if not self._messages:
                if self._error is not None:
                    raise TtrpcError(self._error.code, self._error.message)
                return None
            message = self._messages.popleft()
            self._bytes -= len(message)
            self._changed.notify_all()
        self._release(len(message))
        return message

    def _has_news(self) -> bool:
        return bool(self._messages) or self._ended or self._error is not None
