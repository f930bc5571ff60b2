# SPDX-License-Identifier: Apache-2.0
"""Frames and envelopes: exact bytes, and no bytes that break them."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttrpc import envelope, frames
from ttrpc.errors import Status, TtrpcError


def decode(data: bytes, cuts: list[int] | None = None) -> list[frames.Frame]:
    decoder = frames.Decoder()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    return [frame for start, end in itertools.pairwise(edges) for frame in list(decoder.feed(data[start:end]))]


# What the Go implementation 1.2.8 writes for this request (go_peer capture; see test_interop.py).
GOLDEN = envelope.Request("svc", "Do", b"\x0a\x01x", 0, {"containerd-namespace-ttrpc": "default"})
GOLDEN_FRAME = bytes.fromhex(
    "00000035 00000001 01 00"
    "0a03 737663"
    "1202 446f"
    "1a03 0a0178"
    "2a25 0a1a 636f6e7461696e6572642d6e616d6573706163652d7474727063 1207 64656661756c74"
)


def test_request_has_the_bytes_of_the_go_implementation() -> None:
    assert frames.encode(1, frames.REQUEST, 0, envelope.encode_request(GOLDEN)) == GOLDEN_FRAME


def test_request_of_the_go_implementation_is_understood() -> None:
    (frame,) = decode(GOLDEN_FRAME)
    assert frame.payload is not None
    assert envelope.decode_request(frame.payload) == GOLDEN


def test_timeout_is_the_fourth_field() -> None:
    request = envelope.Request("s", "m", timeout_nano=5_000_000_000)
    assert envelope.encode_request(request) == bytes.fromhex("0a0173 12016d 20 80e497d012")
    assert envelope.decode_request(envelope.encode_request(request)) == request


def test_metadata_keys_are_sent_in_lower_case() -> None:
    assert envelope.encode_request(envelope.Request("", "", metadata={"K": "V"})) == bytes.fromhex("2a06 0a016b 120156")


@pytest.mark.parametrize(
    ("response", "golden"),
    [
        (envelope.Response(), ""),
        (envelope.Response(payload=b"\x08\x01"), "1202 0801"),
        (envelope.Response(5, "x: not found"), "0a10 0805 120c 783a206e6f7420666f756e64"),
    ],
    ids=["empty", "payload", "status"],
)
def test_response_has_the_bytes_of_the_go_implementation(response: envelope.Response, golden: str) -> None:
    assert envelope.encode_response(response) == bytes.fromhex(golden)
    assert envelope.decode_response(bytes.fromhex(golden)) == response


def test_stream_frames_have_the_bytes_of_the_protocol() -> None:
    assert frames.encode(3, frames.REQUEST, frames.REMOTE_OPEN) == bytes.fromhex("00000000 00000003 01 02")
    assert frames.encode(3, frames.DATA, 0, b"\xff") == bytes.fromhex("00000001 00000003 03 00 ff")
    closing = frames.encode(3, frames.DATA, frames.REMOTE_CLOSED | frames.NO_DATA)
    assert closing == bytes.fromhex("00000000 00000003 03 05")


def test_negative_code_and_timeout_survive() -> None:
    assert envelope.decode_response(envelope.encode_response(envelope.Response(-1, "x"))).code == -1
    assert envelope.decode_request(envelope.encode_request(envelope.Request("s", "m", b"", -5))).timeout_nano == -5


def test_unknown_fields_are_skipped() -> None:
    unknown = bytes.fromhex("78 017d 0102030479 01020304050607087a 02 ffff")
    assert envelope.decode_request(unknown + b"\x0a\x01s") == envelope.Request("s", "")
    assert envelope.decode_response(unknown + b"\x12\x01p") == envelope.Response(payload=b"p")


@pytest.mark.parametrize(
    "data",
    ["0a05 41", "0a", "0b", "08 01", "22 01 41", "0a01 ff", "2a02 0801", "00", "0a ffffffffffffffffffff01", "1a"],
    ids=[
        "bytes cut off",
        "length missing",
        "group",
        "number for text",
        "bytes for number",
        "not UTF-8",
        "malformed metadata",
        "field 0",
        "number too long",
        "cut off",
    ],
)
def test_malformed_request_is_an_error(data: str) -> None:
    with pytest.raises(envelope.EnvelopeError):
        envelope.decode_request(bytes.fromhex(data))


def test_metadata_is_limited_in_number_and_the_first_of_equal_keys_counts() -> None:
    entry = bytes.fromhex("2a 06 0a01 4b 1201 31")
    other = bytes.fromhex("2a 06 0a01 6b 1201 32")
    assert envelope.decode_request(entry + other).metadata == {"k": "1"}
    with pytest.raises(envelope.EnvelopeError, match="metadata"):
        envelope.decode_request(entry * (envelope.MAX_METADATA + 1))


def test_payload_longer_than_a_frame_is_refused_by_the_sender() -> None:
    assert len(frames.encode(1, frames.DATA, 0, bytes(frames.MESSAGE_MAX))) == frames.MESSAGE_MAX + 10
    with pytest.raises(TtrpcError) as caught:
        frames.encode(1, frames.DATA, 0, bytes(frames.MESSAGE_MAX + 1))
    assert caught.value.code == Status.RESOURCE_EXHAUSTED


def test_oversized_frame_is_reported_at_once_and_skipped() -> None:
    header = frames.HEADER.pack(frames.MESSAGE_MAX + 1, 1, frames.REQUEST, 0)
    decoder = frames.Decoder()
    (refused,) = decoder.feed(header)
    assert refused == frames.Frame(1, frames.REQUEST, 0, frames.MESSAGE_MAX + 1, None)
    assert list(decoder.feed(bytes(frames.MESSAGE_MAX))) == []
    (following,) = decoder.feed(b"\0" + frames.encode(3, frames.DATA, 0, b"ok"))
    assert following.payload == b"ok"


def test_memory_is_taken_for_data_that_arrived_only() -> None:
    decoder = frames.Decoder()
    assert list(decoder.feed(frames.HEADER.pack(frames.MESSAGE_MAX, 1, frames.REQUEST, 0) + b"x")) == []
    assert decoder.unfinished == frames.MESSAGE_MAX
    assert decoder._payload == b"x"


@given(st.binary(max_size=4096), st.lists(st.integers(0, 4096), max_size=8))
def test_any_bytes_in_any_pieces_decode_without_an_exception(data: bytes, cuts: list[int]) -> None:
    assert decode(data, cuts) == decode(data)


frame_parts = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=200))


@given(st.lists(frame_parts, max_size=8), st.lists(st.integers(0, 2000), max_size=8))
def test_frames_survive_being_cut_into_any_pieces(parts: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frames.encode(*part) for part in parts)
    assert [(f.stream_id, f.type, f.flags, f.payload) for f in decode(data, cuts)] == parts


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_an_envelope_error(data: bytes) -> None:
    for parse in (envelope.decode_request, envelope.decode_response):
        with contextlib.suppress(envelope.EnvelopeError):
            parse(data)


keys = st.text(max_size=20).map(str.lower)


@given(
    st.builds(
        envelope.Request,
        st.text(max_size=30),
        st.text(max_size=30),
        st.binary(max_size=100),
        st.integers(-(2**63), 2**63 - 1),
        st.dictionaries(keys.filter(lambda key: key == key.lower()), st.text(max_size=20), max_size=5),
    )
)
def test_requests_survive_encoding(request: envelope.Request) -> None:
    assert envelope.decode_request(envelope.encode_request(request)) == request


@given(st.builds(envelope.Response, st.integers(1, 2**31 - 1), st.text(max_size=50), st.binary(max_size=100)))
def test_responses_survive_encoding(response: envelope.Response) -> None:
    assert envelope.decode_response(envelope.encode_response(response)) == response
