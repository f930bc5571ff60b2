# SPDX-License-Identifier: Apache-2.0
"""A connected socket that one thread reads and many write.

Writers take turns under a lock and write directly, so there is no write queue: what waits to be written is what its
own writer holds. A writer whose peer does not read waits in ``poll``, from which :meth:`Channel.shutdown` wakes it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from ttrpc.errors import Status, TtrpcError

if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE: Final = 32 * 1024


def remaining(deadline: float | None) -> float | None:
    """Seconds until a ``time.monotonic`` deadline, never negative; ``None`` when there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Channel:
    """Owns ``sock``, which must be a connected stream socket in blocking mode.

    Args:
        sock: closed by :meth:`close`, by nobody else.
        write_chunk: most bytes handed to one ``send``; for transports that lose large packets.
    """

    def __init__(self, sock: socket.socket, write_chunk: int | None = None) -> None:
        self.socket: Final = sock
        self._chunk = write_chunk
        self._writing = threading.Lock()
        self._closing = threading.Lock()  # keeps shutdown() away from a descriptor number that is someone else's now
        self._closed = False
        self._rest = b""  # of a frame that its writer's deadline cut in two; the next writer sends it first
        sock.setblocking(True)

    def receive(self) -> bytes:
        """Bytes from the peer; empty when it will send no more, for whatever reason."""
        try:
            return self.socket.recv(READ_SIZE)
        except OSError:
            return b""

    def send(self, frame: Callable[[], bytes], deadline: float | None = None) -> None:
        """Writes one frame.

        Args:
            frame: makes the frame's bytes, called once when it is this writer's turn. What it raises is passed on.
            deadline: ``time.monotonic`` value. When it passes in the middle of a frame the connection stays usable.
                One that has passed already means: only if it can be done without waiting.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED, or UNAVAILABLE when the connection is down.
        """
        wait = remaining(deadline)
        if not self._writing.acquire(timeout=-1 if wait is None else wait):
            raise TtrpcError(Status.DEADLINE_EXCEEDED, "timed out waiting to write")
        try:
            if self._rest:
                self._rest = self._push(self._rest, deadline)
                if self._rest:
                    raise TtrpcError(Status.DEADLINE_EXCEEDED, "timed out: the peer does not read")
            data = frame()
            rest = self._push(data, deadline)
            if rest:
                self._rest = b"" if len(rest) == len(data) else rest
                raise TtrpcError(Status.DEADLINE_EXCEEDED, "timed out: the peer does not read")
        finally:
            self._writing.release()

    def _push(self, data: bytes, deadline: float | None) -> bytes:
        """Writes until done or the deadline passes; returns what is left."""
        view = memoryview(data)
        try:
            while view:
                try:
                    sent = self.socket.send(view[: self._chunk], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                    view = view[sent:]
                except BlockingIOError:
                    if not self._wait_writable(deadline):
                        break
        except OSError as error:
            self.shutdown()
            raise TtrpcError(Status.UNAVAILABLE, "the connection is closed") from error
        return bytes(view)

    def _wait_writable(self, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLOUT)
        wait = remaining(deadline)
        return bool(poll.poll(None if wait is None else wait * 1000))

    def wait_for_hang_up(self) -> None:
        """After the peer has stopped sending: returns when it has stopped reading too, or after :meth:`shutdown`."""
        poll = select.poll()
        poll.register(self.socket.fileno(), 0)  # reports POLLHUP and POLLERR
        pause = 100
        # An AF_VSOCK socket does not report POLLHUP when its peer has closed, but refuses to send even nothing.
        while self._accepts_writes() and not poll.poll(pause):
            pause = min(5000, pause * 2)

    def _accepts_writes(self) -> bool:
        try:
            self.socket.send(b"", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def shutdown(self) -> None:
        """Ends the connection both ways and wakes every thread that reads or writes. Idempotent."""
        with self._closing:
            if not self._closed:
                with contextlib.suppress(OSError):  # the peer was faster
                    self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Shuts down and frees the descriptor once no writer uses it. To be called by the reading thread."""
        self.shutdown()
        with self._writing, self._closing:
            self._closed = True
            self.socket.close()
