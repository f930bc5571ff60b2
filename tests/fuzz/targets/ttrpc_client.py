# SPDX-License-Identifier: Apache-2.0
"""A client whose server says anything: each call ends, in an answer that was sent or in an error of ours."""

from __future__ import annotations

import socket

from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Client, TtrpcError, envelope, frames

_UNARY, _STREAM, _ONE_ANSWER, _KINDS = range(4)
_PATIENCE = 60.0
"""Seconds; nothing here waits unless something is wrong."""


class _Answering(socket.socket):
    """Once something is sent, the server's bytes are there, and no more will come."""

    def __init__(self, descriptor: int, server: socket.socket, answer: bytes) -> None:
        super().__init__(fileno=descriptor)
        self._server, self._answer = server, answer

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        count = super().send(data, flags)
        if not self._server._closed:  # type: ignore[attr-defined]
            self._server.sendall(self._answer)
            self._server.shutdown(socket.SHUT_WR)
            self._server.close()
        return count


def _answer(code: int = 0, text: str = "", value: str = "v") -> bytes:
    payload = StringValue(value=value).SerializeToString()
    return frames.encode(1, frames.RESPONSE, 0, envelope.encode_response(envelope.Response(code, text, payload)))


_DATA = frames.encode(1, frames.DATA, 0, StringValue(value="v").SerializeToString())
SEEDS = [
    bytes([kind]) + answer
    for kind in range(_KINDS)
    for answer in (
        _answer(),
        _answer(7, "denied %s \x1b[2J"),
        _DATA * 2 + frames.encode(1, frames.DATA, frames.REMOTE_CLOSED | frames.NO_DATA),
        frames.encode(3, frames.RESPONSE, 0, b"not asked for") + frames.encode(1, 9, 0, b"later version") + _answer(),
        frames.HEADER.pack(1 << 31, 1, frames.RESPONSE, 0) + b"x",
        frames.encode(1, frames.RESPONSE, 0, b"\xff\xff"),
    )
]


def target(data: bytes) -> None:
    """The first byte chooses the call, the rest is what the server sends, whatever the call."""
    kind, answer = (data[0] if data else 0) % _KINDS, data[1:]
    ours, theirs = socket.socketpair()
    client = Client(_Answering(ours.detach(), theirs, answer), max_message=4096)
    try:
        if kind == _UNARY:
            _check_unary(client, answer)
        else:
            _read_stream(client, server_streaming=kind == _STREAM)
    finally:
        client.close()
        client.join(_PATIENCE)
        assert client.closed
        theirs.close()


def _check_unary(client: Client, answer: bytes) -> None:
    try:
        found = client.call("s", "m", StringValue(), StringValue, timeout=_PATIENCE).value
    except TtrpcError as error:
        _require_no_wait(error)
        found = None
    assert found == _expected(answer)


def _expected(answer: bytes) -> str | None:
    """What the first frame for the call says, read once more and simply; None when that is no answer."""
    for frame in frames.Decoder(lambda _stream, _type, length: length <= 4096).feed(answer):
        if frame.stream_id != 1 or (frame.payload is not None and frame.type not in (frames.RESPONSE, frames.DATA)):
            continue
        if frame.payload is None or frame.type == frames.DATA:
            return None
        try:
            response = envelope.decode_response(frame.payload)
            return None if response.code else StringValue.FromString(response.payload).value
        except Exception:  # noqa: BLE001 - the protobuf library has several
            return None
    return None


def _read_stream(client: Client, *, server_streaming: bool) -> None:
    try:
        with client.stream("s", "m", StringValue, server_streaming=server_streaming, timeout=_PATIENCE) as stream:
            while stream.recv(_PATIENCE) is not None:
                pass
    except TtrpcError as error:
        _require_no_wait(error)


def _require_no_wait(error: TtrpcError) -> None:
    """A server may give itself any code, but not our words."""
    if "no answer in time" in error.message or "timed out waiting" in error.message:
        raise AssertionError("it waited for what is gone") from error
