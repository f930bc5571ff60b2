# SPDX-License-Identifier: Apache-2.0
"""A TCP connection carried over one stream; both ends of the stream are this.

::

    socket --read--> [at most STREAM_WINDOW bytes unacknowledged] --data--> other end --write--> its socket
                                                         <--window_update--

Each direction has a window of its own, and ends by itself (``eof``, a half-closed socket). What has arrived and could
not be written yet is within the window, so a reader that stalls stops its own direction only, and the other one's
acknowledgements are still taken. It is over when both directions have ended and all that was sent is acknowledged. When
anything breaks, all of it ends, and the socket is reset rather than closed: its peer must not take what it got for the
whole.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from typing import Final, Protocol

from parma_wire.errors import Malformed, Unavailable
from parma_wire.guest_pb2 import ForwardFrame
from parma_wire.limits import MAX_STREAM_DATA, STREAM_WINDOW

_ACKNOWLEDGE: Final = STREAM_WINDOW // 2
_RESET: Final = struct.pack("ii", 1, 0)


def reset_when_closed(connection: socket.socket) -> None:
    """Its peer is to know that this was not all."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Frames(Protocol):
    """What is needed of a stream. ``recv`` fails once the stream is closed on either side."""

    def recv(self) -> ForwardFrame | None:
        """The next frame; None when the other end sends no more."""

    def send(self, frame: ForwardFrame, /) -> None:
        """Raises when the stream is gone."""


class Relay:
    """One connection. The caller closes socket and stream after :meth:`run`."""

    def __init__(self, connection: socket.socket, stream: Frames) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        self._lock: Final = threading.Lock()
        self._wake: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._taking: Final = threading.Thread(target=self._take_frames, name="relay", daemon=True)
        self._finished = False
        # Guarded by the lock: what the thread that takes frames tells the one that serves the socket.
        self._credit = STREAM_WINDOW
        self._arrived = bytearray()
        self._all_arrived = False
        self._failure: Exception | None = None
        # Of the latter alone.
        self._all_sent = False
        self._all_written = False
        self._unacknowledged = 0

    def run(self) -> None:
        """Until both directions are complete. Raises what has broken: ParmaError, or what the stream raises."""
        self._connection.setblocking(False)
        try:
            self._taking.start()
            while not self._over():
                self._step()
        except OSError as error:
            reset_when_closed(self._connection)
            raise Unavailable(f"the connection broke: {error.strerror}") from error
        except BaseException:
            reset_when_closed(self._connection)
            raise
        finally:
            with self._lock:
                self._finished = True
                os.close(self._wake)

    def wait_closed(self, timeout: float) -> None:
        """After :meth:`run`: until the other end has closed the stream, at most ``timeout`` seconds."""
        self._taking.join(timeout)

    # The thread that serves the socket

    def _over(self) -> bool:
        with self._lock:
            return self._all_sent and self._all_written and self._credit == STREAM_WINDOW

    def _step(self) -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            waiting = bytes(self._arrived)
            room = min(self._credit, MAX_STREAM_DATA)
            complete = self._all_arrived
        if complete and not waiting and not self._all_written:
            self._all_written = True
            self._connection.shutdown(socket.SHUT_WR)
            return
        reads = select.POLLIN if room > 0 and not self._all_sent else 0
        writes = select.POLLOUT if waiting else 0
        found = self._wait(reads | writes)
        if found & select.POLLERR and not reads | writes:
            raise Unavailable("the connection broke")
        if writes and found & (select.POLLOUT | select.POLLERR | select.POLLHUP):
            self._write(waiting)
        if reads and found & (select.POLLIN | select.POLLERR | select.POLLHUP):
            self._read(room)

    def _wait(self, events: int) -> int:
        """What of the socket is ready; 0 when there is news of the stream instead."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if events or not self._all_written:  # else its end would be reported again and again
            poll.register(self._connection, events)
        found = dict(poll.poll())
        if self._wake in found:
            os.eventfd_read(self._wake)
        return found.get(self._connection.fileno(), 0)

    def _write(self, waiting: bytes) -> None:
        try:
            written = self._connection.send(waiting, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        with self._lock:
            del self._arrived[:written]
        self._unacknowledged += written
        if self._unacknowledged >= _ACKNOWLEDGE or written == len(waiting):
            self._stream.send(ForwardFrame(window_update=self._unacknowledged))
            self._unacknowledged = 0

    def _read(self, room: int) -> None:
        try:
            data = self._connection.recv(room)
        except BlockingIOError:
            return
        if data:
            with self._lock:
                self._credit -= len(data)
            self._stream.send(ForwardFrame(data=data))
        else:
            self._all_sent = True
            self._stream.send(ForwardFrame(eof=True))

    # The thread that takes frames: never waits for the socket

    def _take_frames(self) -> None:
        try:
            while self._take(self._stream.recv()):
                pass
        except Exception as error:  # noqa: BLE001  # raised again where the socket is served
            self._tell(error)

    def _take(self, frame: ForwardFrame | None) -> bool:
        """False once nothing follows that would be of interest."""
        with self._lock:
            if frame is None and not (self._all_arrived and self._all_sent and self._credit == STREAM_WINDOW):
                raise Unavailable("the other end has gone")
            if frame is None or self._finished:
                return frame is not None
            kind = frame.WhichOneof("frame")
            if kind == "data" and not self._all_arrived:
                self._arrived += frame.data
                if len(self._arrived) > STREAM_WINDOW:
                    raise Malformed("more data than the window has room for", expected=f"at most {STREAM_WINDOW} bytes")
            elif kind == "window_update":
                self._credit += frame.window_update
                if self._credit > STREAM_WINDOW:
                    raise Malformed("more bytes acknowledged than were sent")
            elif kind == "eof" and not self._all_arrived:
                self._all_arrived = True
            else:
                raise Malformed("unexpected frame", expected="data, window_update or eof")
            os.eventfd_write(self._wake, 1)
        return True

    def _tell(self, failure: Exception) -> None:
        with self._lock:
            if not self._finished:
                self._failure = failure
                os.eventfd_write(self._wake, 1)
