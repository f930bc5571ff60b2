# SPDX-License-Identifier: Apache-2.0
"""Frames of the other end of a forwarded connection: whatever they are it ends, and holds no more than the window."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from parma_wire.errors import Malformed, Unavailable
from parma_wire.guest_pb2 import ForwardFrame
from parma_wire.limits import STREAM_WINDOW
from parma_wire.relay import Relay

_ANSWER = b"an answer"
_MOST_FRAMES = 64


def _seed(*frames: ForwardFrame) -> bytes:
    return b"".join(len(data).to_bytes(2, "big") + data for data in (frame.SerializeToString() for frame in frames))


_ACKNOWLEDGED = ForwardFrame(window_update=len(_ANSWER))
_END = ForwardFrame(eof=True)
SEEDS = [
    _seed(ForwardFrame(data=b"a request"), _END, _ACKNOWLEDGED),
    _seed(_END, _ACKNOWLEDGED),
    _seed(_ACKNOWLEDGED, _ACKNOWLEDGED),
    _seed(_END, _END),
    _seed(*[ForwardFrame(data=bytes(16_000))] * 3),
    _seed(ForwardFrame(window_update=2**32 - 1), ForwardFrame()),
]


class _Stream:
    """The frames, each of which must leave the relay within its bounds, then the end."""

    def __init__(self, data: bytes) -> None:
        self._frames = _frames(data)
        self.relay: Relay | None = None

    def recv(self) -> ForwardFrame | None:
        assert self.relay is not None
        assert len(self.relay._arrived) <= STREAM_WINDOW
        assert 0 <= self.relay._credit <= STREAM_WINDOW
        return next(self._frames, None)

    def send(self, frame: ForwardFrame) -> None:
        assert frame.WhichOneof("frame") in ("data", "window_update", "eof")


def _frames(data: bytes) -> Iterator[ForwardFrame]:
    for _ in range(_MOST_FRAMES):
        size = int.from_bytes(data[:2], "big")
        if not data:
            return
        try:
            yield ForwardFrame.FromString(data[2 : 2 + size])
        except DecodeError:  # never gets here: ttrpc ends the stream
            return
        data = data[2 + size :]


def target(data: bytes) -> None:
    """The bytes as frames, for a connection whose peer has said all and reads nothing yet."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(_ANSWER)
        far.shutdown(socket.SHUT_WR)
        stream = _Stream(data)
        stream.relay = Relay(near, stream)
        with contextlib.suppress(Malformed, Unavailable):
            stream.relay.run()
        stream.relay.wait_closed(60)
