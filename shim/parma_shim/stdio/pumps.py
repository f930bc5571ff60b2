# SPDX-License-Identifier: Apache-2.0
"""The loops between one descriptor on the host and one stream to the guest; each runs in a thread of its own.

A sender has at most :data:`parma_wire.limits.STREAM_WINDOW` bytes under way; the receiver returns credit only for what
it has passed on. So a reader that stalls stops exactly its own stream, in the guest, with no buffer in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from parma_shim.stdio.inputs import Input
from parma_shim.stdio.outputs import Output
from parma_shim.stdio.waiting import Stopper
from parma_shim.task.ports import Stream
from parma_wire.guest_pb2 import StreamFrame, StreamOpen
from parma_wire.limits import MAX_STREAM_DATA, STREAM_WINDOW
from ttrpc import Status, TtrpcError

TAKE_EVERY: Final = 0.25
"""Seconds. While a reader is slow, messages are still taken off the connection: only so many fit into the stream's
inbox, and a process may write its bytes one by one."""

ACKNOWLEDGE: Final = STREAM_WINDOW // 2
"""Bytes of output after which credit is given back: each time costs the guest three switches of thread, and until then
it has as many bytes to go on with."""

MAX_UNACKNOWLEDGED: Final = 32
"""Messages of input on their way: half of what fits into the guest's inbox, as a client may write its bytes one by
one. The guest acknowledges each message by itself."""


Count = Callable[[int], None]
"""Told how many bytes were passed on."""


def pump_output(stream: Stream, opening: StreamOpen, output: Output, stopper: Stopper, count: Count) -> None:
    """From the guest to ``output``, until the guest says that this was all, or is gone. Closes ``output``."""
    try:
        with contextlib.suppress(TtrpcError):
            stream.send(StreamFrame(open=opening))
            held = bytearray()
            passed_on = 0  # and not acknowledged yet
            finished = False
            while not stopper.stopped and not (finished and not held):
                if not finished:
                    finished = _receive(stream, held, wait=not held)
                written = output.write(held, stopper, None if finished or len(held) >= STREAM_WINDOW else TAKE_EVERY)
                del held[:written]
                count(written)
                passed_on += written
                if passed_on >= ACKNOWLEDGE and not finished:
                    stream.send(StreamFrame(window_update=passed_on))
                    passed_on = 0
    finally:
        output.close()
        stream.close()


def _receive(stream: Stream, held: bytearray, *, wait: bool) -> bool:
    """Adds what has arrived to ``held``; ``True`` when nothing will follow.

    The window bounds ``held``. A guest that ignores its window is read no further until something was written.
    """
    while len(held) < STREAM_WINDOW:
        try:
            frame = stream.recv(None if wait else 0)
        except TtrpcError as error:
            return error.code != Status.DEADLINE_EXCEEDED
        if frame is None or frame.eof:
            return True
        held += frame.data
        wait = False
    return False


def pump_input(stream: Stream, opening: StreamOpen, source: Input, stopper: Stopper, count: Count) -> None:
    """From ``source`` to the guest, until its end or until the process wants no more. Closes ``source``."""
    try:
        with contextlib.suppress(TtrpcError):
            stream.send(StreamFrame(open=opening))
            _send_all(stream, source, stopper, count)
    finally:
        source.close()
        stream.close()


def _send_all(stream: Stream, source: Input, stopper: Stopper, count: Count) -> None:
    credit, messages = STREAM_WINDOW, MAX_UNACKNOWLEDGED
    while True:
        gained = _credit(stream, wait=credit <= 0 or messages <= 0)
        if gained is None:
            return  # the process closed its stdin, or ended
        credit += gained[0]
        messages += gained[1]
        if credit <= 0 or messages <= 0:
            continue
        data = source.read(min(credit, MAX_STREAM_DATA), stopper)
        if data is None:
            return
        if not data:
            stream.send(StreamFrame(eof=True))
            # Closing a stream with data in flight would lose it: wait until the guest has it all.
            while _credit(stream, wait=True) is not None:
                pass
            return
        stream.send(StreamFrame(data=data))
        count(len(data))
        credit -= len(data)
        messages -= 1


def _credit(stream: Stream, *, wait: bool) -> tuple[int, int] | None:
    """Bytes and messages that were acknowledged; ``None`` when the guest has closed the stream."""
    total = count = 0
    while count < MAX_UNACKNOWLEDGED:
        try:
            frame = stream.recv(None if wait and not count else 0)
        except TtrpcError as error:
            if error.code == Status.DEADLINE_EXCEEDED:
                break
            raise
        if frame is None or frame.eof:
            return None
        total += frame.window_update
        count += 1
    return total, count
