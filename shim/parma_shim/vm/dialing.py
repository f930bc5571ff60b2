# SPDX-License-Identifier: Apache-2.0
"""Dialling a guest through the Unix socket of its ``vhost-device-vsock``: ``CONNECT <port>``, answered ``OK <port>``.

Version 0.3.0 of the device ends its only worker thread when whoever dialled has gone by the time the guest answers, and
with it every connection of the VM hangs for good. A guest that is held up for a moment (a busy host, a debugger) must
not cost the VM, so no attempt is ever given up: one that was not answered in time is kept, and the next one for the
same port goes on with it.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Final

from parma_wire.errors import DeadlineExceeded

_MAX_REPLY: Final = 32


class NotListeningError(Exception):
    """Nobody accepts on that port of the guest yet."""


class Dialer:
    """For several threads, each of which gets a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._lock: Final = threading.Lock()
        self._unanswered: list[_Attempt] = []
        self._closed = False

    def dial(self, port: int, timeout: float) -> socket.socket:
        """A stream to that port. Raises NotListeningError, or DeadlineExceeded after ``timeout`` seconds."""
        attempt = self._take(port) or _Attempt(self._path, port)
        try:
            answered = attempt.wait(timeout)
        except BaseException:
            attempt.connection.close()
            raise
        if not answered:
            self._keep(attempt)
            raise DeadlineExceeded("the guest did not answer on vsock")
        return attempt.connection

    def close(self) -> None:
        """Once the device has ended."""
        with self._lock:
            self._closed = True
            for attempt in self._unanswered:
                attempt.connection.close()
            self._unanswered.clear()

    def _take(self, port: int) -> _Attempt | None:
        with self._lock:
            for attempt in self._unanswered:
                if attempt.port == port:
                    self._unanswered.remove(attempt)
                    return attempt
        return None

    def _keep(self, attempt: _Attempt) -> None:
        with self._lock:
            if not self._closed:
                self._unanswered.append(attempt)
                return
        attempt.connection.close()


class _Attempt:
    """A connection that was asked for, and as much of the answer as has come."""

    def __init__(self, path: str, port: int) -> None:
        self.port: Final = port
        self.connection: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reply = b""
        try:
            self.connection.setblocking(False)
            self.connection.connect(path)
            self.connection.send(f"CONNECT {port}\n".encode())
        except OSError as error:
            self.connection.close()
            raise NotListeningError(str(error)) from error

    def wait(self, timeout: float) -> bool:
        """Whether the answer is complete within so many seconds. Raises NotListeningError when it is a no."""
        end = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while not self._reply.endswith(b"\n"):
            remaining = end - time.monotonic()
            if remaining <= 0 or not poll.poll(int(remaining * 1000) + 1):
                return False
            self._receive()
        if not self._reply.startswith(b"OK "):
            raise NotListeningError("the vsock device refused the connection")
        self.connection.setblocking(True)
        return True

    def _receive(self) -> None:
        try:
            # One byte at a time: what follows the line belongs to the connection's user.
            piece = self.connection.recv(1)
        except OSError as error:
            raise NotListeningError(str(error)) from error
        if not piece or len(self._reply) >= _MAX_REPLY:
            raise NotListeningError("the vsock device closed the connection")
        self._reply += piece
