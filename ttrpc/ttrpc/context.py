# SPDX-License-Identifier: Apache-2.0
"""What a handler knows about the request besides its message."""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

from ttrpc import channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping


class Context:
    """The circumstances of one request.

    Attributes:
        metadata: keys in lower case.
        deadline: ``time.monotonic`` value after which the client no longer waits, or ``None``.
        peer: the connection's socket, for asking who is there (``SO_PEERCRED``, ``getpeername``) and nothing else.
    """

    __slots__ = ("_after_reply", "_cancelled", "_lock", "_on_cancel", "deadline", "metadata", "peer")

    def __init__(
        self,
        metadata: Mapping[str, str] | None = None,
        deadline: float | None = None,
        peer: socket.socket | None = None,
    ) -> None:
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self.deadline = deadline
        self.peer = peer
        self._lock = threading.Lock()
        self._cancelled = False
        self._on_cancel: list[Callable[[], None]] = []
        self._after_reply: list[Callable[[], None]] = []

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; ``None`` when there is none."""
        return channel.remaining(self.deadline)

    @property
    def cancelled(self) -> bool:
        """Whether the client is gone or its stream was given up, so that nobody will read the answer."""
        return self._cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls back once when the request is cancelled, at once if it is already.

        The callback runs on the connection's reader; it must not block and not raise. A handler that waits long uses
        it to stop waiting.
        """
        with self._lock:
            if not self._cancelled:
                self._on_cancel.append(callback)
                return
        callback()

    def after_reply(self, callback: Callable[[], None]) -> None:
        """Calls back once after the answer was written (or could not be), on the handler's thread.

        For requests such as Shutdown that end the process which must first answer them.
        """
        self._after_reply.append(callback)

    def cancel(self) -> None:
        """Marks the request as cancelled. Called by the server."""
        with self._lock:
            self._cancelled = True
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()

    def finish(self) -> None:
        """Runs what :meth:`after_reply` was given. Called by the server."""
        callbacks, self._after_reply = self._after_reply, []
        for callback in callbacks:
            callback()
