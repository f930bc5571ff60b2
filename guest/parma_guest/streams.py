# SPDX-License-Identifier: Apache-2.0
"""The Streams service: a process's stdin, stdout and stderr, each with a window of its own.

Output::

    pipe --read--> [at most STREAM_WINDOW bytes unacknowledged] --data--> host
    host --window_update--> credit;   pipe at its end --> eof

A host that stops acknowledging stops exactly one pipe: the process blocks when that pipe is full, and nothing is
buffered here. Output is complete: ``eof`` is sent only after the pipe has ended. One exception keeps a daemonised
grandchild from holding a stream open for ever: `LINGER` seconds after the process exited, an idle pipe counts as
ended.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from parma_guest.processes import Process
from parma_guest.stdio import KINDS, STDIN, Waker, wait_ready
from parma_guest.values import ContainerId, ExecId
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed
from parma_wire.limits import MAX_STREAM_DATA, STREAM_WINDOW

LINGER: Final = 5.0
"""Seconds after the exit of a process during which its output may still come from other writers of the pipe."""

FindProcess = Callable[[ContainerId, ExecId], Process]


class FrameStream(Protocol):
    """What is needed of ttrpc's server stream."""

    def recv(self) -> pb.StreamFrame | None:
        """The next frame; None when the host has closed its side."""

    def send(self, frame: pb.StreamFrame, /) -> None:
        """Raises when the connection is gone."""


def serve(
    stream: FrameStream,
    find: FindProcess,
    on_cancel: Callable[[Callable[[], None]], None],
    *,
    linger: float = LINGER,
) -> None:
    """One stream, from its ``open`` frame to its end. ``on_cancel`` registers what to call when the host is gone."""
    first = stream.recv()
    if first is None:
        return
    if first.WhichOneof("frame") != "open":
        raise Malformed("a stream begins with an 'open' frame")
    process = find(ContainerId(first.open.container_id), ExecId(first.open.exec_id))
    kind = int(first.open.kind)
    if kind not in KINDS:
        raise Malformed("unknown kind of stream", expected="STDIN, STDOUT or STDERR")
    if kind == STDIN:
        _serve_input(stream, process, on_cancel)
    else:
        _Output(stream, process, kind, linger).serve()


def _serve_input(stream: FrameStream, process: Process, on_cancel: Callable[[Callable[[], None]], None]) -> None:
    descriptor = process.stdio.borrow(STDIN)
    waker = Waker()
    cancelled = threading.Event()

    def cancel() -> None:
        cancelled.set()
        waker.wake()

    forget = process.on_exit(waker.wake)
    on_cancel(cancel)
    finished = False
    try:
        while not finished:
            frame = stream.recv()
            name = frame.WhichOneof("frame") if frame is not None else None
            if frame is None:
                return  # the host may come back and open the stream again
            if name == "eof":
                finished = True
            elif name == "data":
                if len(frame.data) > MAX_STREAM_DATA:
                    raise Malformed("a piece of stdin is too large", expected=f"at most {MAX_STREAM_DATA} bytes")
                if descriptor is not None and not _write(descriptor, frame.data, waker):
                    # Nobody reads it any more, unless it was the host that left: it may come back.
                    if cancelled.is_set():
                        return
                    finished = True
                else:
                    stream.send(pb.StreamFrame(window_update=len(frame.data)))
            else:
                raise Malformed("unexpected frame", expected="data or eof")
    finally:
        if descriptor is not None:
            process.stdio.give_back(STDIN, finished=finished)
        forget()
        waker.close()


def _write(descriptor: int, data: bytes, waker: Waker) -> bool:
    """Writes all of it, waiting for the reader; False when there is no reader any more."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            if not wait_ready(descriptor, select.POLLOUT, waker, None):
                return False
        except OSError:
            return False
    return True


class _Pace:
    """How long to wait for more before a piece of output is sent.

    A frame costs far more than a byte, and a terminal hands out its bytes in small pieces, as soon as there are any. So
    while pieces follow one another without a pause, each is given a moment to grow, longer as long as they stay
    small; output that comes now and then, such as an echo, is not held up.
    """

    LONGEST: Final = 0.008
    _SHORTEST: Final = 0.0005
    _LARGE: Final = MAX_STREAM_DATA // 2

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._moment = 0.0
        self._last = -1.0

    def wait(self, size: int) -> bool:
        """A piece of ``size`` bytes has been read; returns whether there was a wait."""
        began = self._clock()
        flows = began - self._last < 2 * self.LONGEST
        if not flows or size >= self._LARGE:
            self._moment = 0.0
        else:
            self._moment = min(max(2 * self._moment, self._SHORTEST), self.LONGEST)
            self._sleep(self._moment)
        self._last = self._clock()
        return self._moment > 0


class _Output:
    """stdout or stderr: a thread that pumps, while the stream's own thread takes the acknowledgements."""

    def __init__(self, stream: FrameStream, process: Process, kind: int, linger: float) -> None:
        self._stream = stream
        self._process = process
        self._kind = kind
        self._linger = linger
        self._credit = STREAM_WINDOW
        self._condition = threading.Condition()
        self._stopped = False
        self._waker = Waker()
        self._pace = _Pace()
        self._exited_at: float | None = None

    def serve(self) -> None:
        descriptor = self._process.stdio.borrow(self._kind)
        if descriptor is None:
            self._stream.send(pb.StreamFrame(eof=True))
            return
        finished = threading.Event()
        pump = threading.Thread(target=self._pump, args=(descriptor, finished), name="stdout", daemon=True)
        pump.start()
        try:
            self._take_acknowledgements()
        finally:
            with self._condition:
                self._stopped = True
                self._condition.notify()
            self._waker.wake()
            pump.join()
            self._process.stdio.give_back(self._kind, finished=finished.is_set())
            self._waker.close()

    def _take_acknowledgements(self) -> None:
        while True:
            frame = self._stream.recv()
            if frame is None:
                return
            if frame.WhichOneof("frame") != "window_update":
                raise Malformed("unexpected frame", expected="window_update")
            with self._condition:
                self._credit += frame.window_update
                if self._credit > STREAM_WINDOW:
                    raise Malformed("more bytes acknowledged than were sent")
                self._condition.notify()

    def _pump(self, descriptor: int, finished: threading.Event) -> None:
        # The waker wakes on exit too, so that the linger begins when the process is already quiet.
        forget = self._process.on_exit(self._note_exit)
        try:
            while True:
                most = self._wait_for_credit()
                if not most:
                    return
                data = self._read(descriptor, most)
                if data is None:
                    return
                if not data:
                    finished.set()
                    self._stream.send(pb.StreamFrame(eof=True))
                    return
                data = self._with_more(descriptor, data, most)
                with self._condition:
                    self._credit -= len(data)
                self._stream.send(pb.StreamFrame(data=data))
        except Exception:  # noqa: BLE001  # the connection is gone: the stream's own thread notices as well
            return
        finally:
            forget()

    def _note_exit(self) -> None:
        self._exited_at = time.monotonic()
        self._waker.wake()

    def _wait_for_credit(self) -> int:
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._credit > 0)
            return 0 if self._stopped else min(self._credit, MAX_STREAM_DATA)

    def _read(self, descriptor: int, most: int) -> bytes | None:
        """Bytes, b"" at the end, None when the stream was stopped."""
        while True:
            try:
                return os.read(descriptor, most)
            except BlockingIOError:
                pass
            except OSError:  # EIO: the terminal's last user has gone
                return b""
            if self._stopped:
                return None
            if self._exited_at is None:
                wait_ready(descriptor, select.POLLIN, self._waker, None)
                continue
            left = self._exited_at + self._linger - time.monotonic()
            if left <= 0:
                return b""
            self._wait_after_exit(descriptor, left)

    def _with_more(self, descriptor: int, data: bytes, most: int) -> bytes:
        """While output flows, what comes in the next moment as well, up to ``most`` bytes; see `_Pace`.

        An end that is met here is met again by the next read.
        """
        if self._pace.wait(len(data)):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while len(data) < most and poll.poll(0):
                try:
                    piece = os.read(descriptor, most - len(data))
                except OSError:
                    break
                if not piece:
                    break
                data += piece
        return data

    def _wait_after_exit(self, descriptor: int, left: float) -> None:
        """The waker is set by now, so it cannot be polled: look at the pipe in short steps instead."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(min(left, 0.05) * 1000)
