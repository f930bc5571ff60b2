# SPDX-License-Identifier: Apache-2.0
"""A server's connection: whatever a client sends, each request is answered once and nothing is held afterwards.

The channel and the threads are the test's own: a worker's job runs when the reader comes back for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value, StringValue

import ttrpc
from tests.ttrpc.support import ECHO, NAME
from ttrpc import envelope, frames, service
from ttrpc.budget import Budget
from ttrpc.serving import ServerConnection

_PIECE = 500
"""Bytes read at once: fewer frames than an inbox has room for, so that no stream is waited for."""

_MAX_MESSAGE = 2048
_MAX_HELD = 4096


class _Echo:
    """The service of echo.proto without anything that waits or is large."""

    def Say(self, request: StringValue, _context: ttrpc.Context) -> StringValue:  # noqa: N802
        return request

    def Fail(self, request: Int32Value, _context: ttrpc.Context) -> Empty:  # noqa: N802
        raise ttrpc.TtrpcError(request.value % 16 or 1, "as asked")

    def Metadata(self, request: StringValue, context: ttrpc.Context) -> StringValue:  # noqa: N802
        return StringValue(value=context.metadata.get(request.value, ""))

    def Deadline(self, _request: Empty, context: ttrpc.Context) -> Int64Value:  # noqa: N802
        return Int64Value(value=int(context.remaining() or 0))

    def Collect(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> StringValue:  # noqa: N802
        return StringValue(value=str(len(_all(stream))))

    def Count(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> None:  # noqa: N802
        stream.send(stream.recv(0) or StringValue())

    def Chat(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> None:  # noqa: N802
        for message in _all(stream):
            stream.send(message)


def _all(stream: ttrpc.ServerStream) -> list[Any]:
    """What has arrived; DEADLINE_EXCEEDED, raised here, when the client has not closed its side."""
    found = []
    while (message := stream.recv(0)) is not None:
        found.append(message)
    return found


class _Channel:
    """In place of a socket: the client's bytes, and what it is sent."""

    socket: Any = None

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self.sent = b""
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        """As the pool of workers."""
        self.jobs.append(job)

    def receive(self) -> bytes:
        self.work()
        return self._pieces.pop(0) if self._pieces else b""

    def send(self, frame: Callable[[], bytes], _deadline: float | None = None) -> None:
        self.sent += frame()

    def work(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    wait_for_hang_up = work

    def shutdown(self) -> None:
        """Nothing waits."""

    close = shutdown


def _request(stream_id: int, method: str, message: Any, flags: int = 0, name: str = NAME) -> bytes:
    body = envelope.encode_request(envelope.Request(name, method, message.SerializeToString(), 10**12, {"k": "v"}))
    return frames.encode(stream_id, frames.REQUEST, flags, body)


_TEXT = StringValue(value="k")
SEEDS = [
    _request(1, "Say", _TEXT) + _request(3, "Metadata", _TEXT) + _request(5, "Deadline", Empty()),
    _request(1, "Fail", Int32Value(value=9)) + _request(3, "Nothing", _TEXT) + _request(5, "Say", _TEXT, name="x"),
    _request(1, "Chat", Empty(), frames.REMOTE_OPEN)
    + frames.encode(1, frames.DATA, 0, _TEXT.SerializeToString()) * 3
    + frames.encode(1, frames.DATA, frames.REMOTE_CLOSED | frames.NO_DATA),
    _request(1, "Collect", Empty(), frames.REMOTE_OPEN) + frames.encode(1, frames.DATA, frames.REMOTE_CLOSED, b"\xff"),
    _request(1, "Count", Int32Value(value=3), frames.REMOTE_CLOSED) + _request(1, "Say", _TEXT),
    _request(2, "Say", _TEXT) + frames.encode(7, frames.DATA, 0, b"x") + frames.encode(9, 77, 0, b"later version"),
    frames.HEADER.pack(_MAX_MESSAGE + 1, 1, frames.REQUEST, 0) + b"x" * 9,
    frames.HEADER.pack(_MAX_MESSAGE, 1, frames.REQUEST, 0) + b"x" * 9,
]
_METHODS = service.methods_of(ECHO, _Echo())


def _find(name: str, method: str) -> service.Method:
    if name != NAME or method not in _METHODS:
        raise ttrpc.TtrpcError(ttrpc.Status.UNIMPLEMENTED, "no such method")
    return _METHODS[method]


def target(data: bytes) -> None:
    """One connection from its first byte to its last."""
    channel, budget, log = _Channel(data), Budget(_MAX_HELD), list[str]()
    connection = ServerConnection(
        channel,  # type: ignore[arg-type]
        find=_find,
        workers=channel,  # type: ignore[arg-type]
        budget=budget,
        max_in_flight=8,
        max_message=_MAX_MESSAGE,
        log=log.append,
    )
    connection.run()
    channel.work()
    assert budget.used == 0
    assert not log, log
    _check_answers(data, channel.sent)


def _check_answers(data: bytes, sent: bytes) -> None:
    decoder = frames.Decoder()
    answers = [*decoder.feed(sent)]
    assert decoder.unfinished is None
    ends = Counter(frame.stream_id for frame in answers if _is_end(frame))
    for frame in answers:
        if frame.type == frames.RESPONSE:
            envelope.decode_response(frame.payload or b"")
    asked = [*frames.Decoder(lambda _stream, _type, length: length <= _MAX_MESSAGE).feed(data)]
    frames_of = Counter(frame.stream_id for frame in asked)
    assert set(ends) <= set(frames_of), "an answer to nobody"
    for frame in asked:
        if frames_of[frame.stream_id] == 1 and frame.type == frames.REQUEST:
            assert ends[frame.stream_id] == 1, frame


def _is_end(frame: frames.Frame) -> bool:
    assert frame.type in (frames.RESPONSE, frames.DATA)
    return frame.type == frames.RESPONSE or bool(frame.flags & frames.REMOTE_CLOSED)
