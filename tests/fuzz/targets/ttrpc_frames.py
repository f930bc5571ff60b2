# SPDX-License-Identifier: Apache-2.0
"""ttrpc's frames and its two messages: any bytes, in any pieces, are the same frames, and no header takes memory."""

from __future__ import annotations

import sys

from ttrpc import envelope, frames
from ttrpc.envelope import Request, Response

_SMALL = 64
"""A second reader takes no longer frame than this."""

_REQUEST = envelope.encode_request(Request("parma.guest.v1.Guest", "Hello", b"abc", 1_000_000, {"key": "value"}))
_RESPONSE = envelope.encode_response(Response(7, "denied", b"payload"))
SEEDS = [
    frames.encode(1, frames.REQUEST, 0, _REQUEST),
    frames.encode(1, frames.RESPONSE, 0, _RESPONSE) + frames.encode(3, frames.DATA, frames.REMOTE_CLOSED, b"data"),
    frames.encode(5, frames.DATA, frames.NO_DATA) * 3,
    frames.HEADER.pack(frames.MESSAGE_MAX + 1, 1, frames.REQUEST, 0) + b"x" * 20,
    frames.HEADER.pack(frames.MESSAGE_MAX, 1, frames.REQUEST, 0) + b"x" * 20,
    _REQUEST,
    _RESPONSE,
]


def target(data: bytes) -> None:
    """The bytes as a connection's, and each payload in it, and they themselves, as both messages."""
    whole = [*frames.Decoder().feed(data)]
    for size in (1, 7):
        assert _in_pieces(data, size, frames.admit_all) == whole
    assert b"".join(_encoded(frame) for frame in whole) == data[: _length(whole, data)]
    few = _in_pieces(data, 5, lambda _stream, _type, length: length <= _SMALL)
    assert all(frame.payload is None or len(frame.payload) == frame.length <= _SMALL for frame in few)
    for payload in (data, *(frame.payload or b"" for frame in whole[:8])):
        _messages(payload)


def _in_pieces(data: bytes, size: int, admit: object) -> list[frames.Frame]:
    decoder = frames.Decoder(admit)  # type: ignore[arg-type]
    found: list[frames.Frame] = []
    for start in range(0, len(data), size):
        found += decoder.feed(data[start : start + size])
        assert sys.getsizeof(decoder._payload) <= 2 * len(data) + 128, "memory follows what arrived"
    return found


def _encoded(frame: frames.Frame) -> bytes:
    """A frame that was refused has only its header in these bytes: nothing so long fits in an input."""
    if frame.payload is None:
        return frames.HEADER.pack(frame.length, frame.stream_id, frame.type, frame.flags)
    return frames.encode(frame.stream_id, frame.type, frame.flags, frame.payload)


def _length(found: list[frames.Frame], data: bytes) -> int:
    """Bytes of ``data`` that the frames stand for, without a refused one's data and an unfinished frame."""
    total = sum(frames.HEADER.size + len(frame.payload or b"") for frame in found)
    assert total <= len(data)
    return total


def _messages(data: bytes) -> None:
    try:
        request = envelope.decode_request(data)
    except envelope.EnvelopeError:
        pass
    else:
        assert len(request.metadata) <= envelope.MAX_METADATA
        assert envelope.decode_request(envelope.encode_request(request)) == request
    try:
        response = envelope.decode_response(data)
    except envelope.EnvelopeError:
        return
    again = envelope.decode_response(envelope.encode_response(response))
    assert (again.code, again.payload) == (response.code, response.payload)
    assert again.message == (response.message if response.code else "")
