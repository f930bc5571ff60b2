# SPDX-License-Identifier: Apache-2.0
"""Peers that die, close half, lie, flood, or do not read."""

from __future__ import annotations

import contextlib
import socket
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

import ttrpc
from tests.ttrpc.support import ECHO, NAME, SECONDS, Peer, Running, running, wait_until
from ttrpc import Status, envelope, frames

RO = frames.REMOTE_OPEN


def text(value: str) -> StringValue:
    return StringValue(value=value)


# --- the server's peers


@pytest.mark.parametrize("stream_id", [0, 2, 0xFFFF_FFFE])
@pytest.mark.parametrize("type_", [frames.REQUEST, frames.DATA])
def test_even_stream_id_is_refused(peer: Peer, stream_id: int, type_: int) -> None:
    peer.send(stream_id, type_, 0, b"")
    assert peer.refusal() == (stream_id, Status.INVALID_ARGUMENT)


def test_stream_id_used_again_or_decreasing_is_refused(peer: Peer) -> None:
    peer.request(5, "Say", text("x"))
    assert peer.response()[0] == 5
    for stream_id in (5, 3):
        peer.request(stream_id, "Say", text("x"))
        assert peer.refusal() == (stream_id, Status.INVALID_ARGUMENT)
    peer.request(7, "Say", text("x"))
    assert peer.refusal() == (7, Status.OK)


def test_repeated_request_does_not_disturb_the_one_in_progress(run: Running, peer: Peer) -> None:
    peer.request(1, "Block", text("x"))
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.request(1, "Block", text("y"))
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)
    run.echo.gate.set()
    assert peer.refusal() == (1, Status.OK)


def test_highest_stream_id_is_served(peer: Peer) -> None:
    peer.request(0xFFFF_FFFF, "Say", text("x"))
    assert peer.refusal() == (0xFFFF_FFFF, Status.OK)


def test_oversized_frame_is_refused_on_its_stream_and_the_connection_goes_on(peer: Peer) -> None:
    peer.send(1, frames.REQUEST, 0, bytes(frames.MESSAGE_MAX + 1))
    assert peer.refusal() == (1, Status.RESOURCE_EXHAUSTED)
    peer.request(1, "Say", text("x"))
    assert peer.refusal() == (1, Status.OK)


def test_oversized_data_ends_its_stream_only(run: Running, peer: Peer) -> None:
    peer.request(1, "Chat", flags=RO)
    peer.send(1, frames.DATA, 0, bytes(frames.MESSAGE_MAX + 1))
    assert peer.refusal() == (1, Status.RESOURCE_EXHAUSTED)
    assert run.echo.stream_ended.wait(SECONDS)
    peer.request(3, "Say", text("x"))
    assert peer.refusal() == (3, Status.OK)


def test_frames_of_unknown_types_are_ignored(peer: Peer) -> None:
    peer.send(1, 77, 0, b"future")
    peer.send(1, frames.RESPONSE, 0, b"")
    peer.request(1, "Say", text("x"))
    assert peer.refusal() == (1, Status.OK)


def test_request_that_is_no_envelope_is_refused(peer: Peer) -> None:
    peer.send(1, frames.REQUEST, 0, b"\xff\xff")
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)


def test_peer_that_dies_in_the_middle_of_a_frame_leaves_nothing(run: Running, peer: Peer) -> None:
    peer.sock.sendall(frames.HEADER.pack(1000, 1, frames.REQUEST, 0) + b"half")
    peer.sock.close()
    run.join()
    assert (run.server.connections, run.server.held) == (0, 0)


def test_death_of_the_peer_cancels_what_it_waits_for(run: Running, peer: Peer) -> None:
    peer.request(1, "Block", text("x"))
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.sock.close()
    assert run.echo.cancelled.wait(SECONDS)
    run.join()


def test_death_of_the_peer_ends_its_streams(run: Running, peer: Peer) -> None:
    peer.request(1, "Chat", flags=RO)
    peer.send(1, frames.DATA, 0, text("x").SerializeToString())
    assert peer.receive() is not None
    peer.sock.close()
    assert run.echo.stream_ended.wait(SECONDS)
    run.join()


def test_half_closed_peer_still_gets_its_answers(run: Running, peer: Peer) -> None:
    peer.request(1, "Block", text("x"))
    peer.request(3, "Collect", flags=RO)
    peer.send(3, frames.DATA, 0, text("part").SerializeToString())
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.sock.shutdown(socket.SHUT_WR)
    stream_id, response = peer.response()
    assert (stream_id, StringValue.FromString(response.payload).value) == (3, "part")
    run.echo.gate.set()
    assert peer.refusal() == (1, Status.OK)
    assert peer.receive() is None  # then the server closes
    run.join()


def test_half_closed_peer_that_goes_away_cancels_the_rest(run: Running, peer: Peer) -> None:
    peer.request(1, "Block", text("x"))
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.sock.shutdown(socket.SHUT_WR)
    assert not run.echo.cancelled.is_set()
    peer.sock.close()
    assert run.echo.cancelled.wait(SECONDS)
    run.join()


def test_requests_in_flight_are_limited_per_connection() -> None:
    with running(max_in_flight=3) as run:
        peer, other = Peer(run.connect()), Peer(run.connect())
        for stream_id in (1, 3, 5):
            peer.request(stream_id, "Block", text("x"))
            assert run.echo.blocked.acquire(timeout=SECONDS)
        peer.request(7, "Say", text("x"))
        assert peer.refusal() == (7, Status.RESOURCE_EXHAUSTED)
        other.request(1, "Say", text("x"))
        assert other.refusal() == (1, Status.OK)
        run.echo.gate.set()
        assert {peer.refusal() for _ in range(3)} == {(1, 0), (3, 0), (5, 0)}
        wait_until(lambda: run.server.held == 0)
        peer.request(9, "Say", text("x"))
        assert peer.refusal() == (9, Status.OK)


def test_threads_are_limited_altogether() -> None:
    with running(max_threads=1) as run:
        peer, other = Peer(run.connect()), Peer(run.connect())
        peer.request(1, "Block", text("x"))
        assert run.echo.blocked.acquire(timeout=SECONDS)
        other.request(1, "Say", text("x"))
        assert other.refusal() == (1, Status.RESOURCE_EXHAUSTED)
        run.echo.gate.set()


def test_bytes_held_are_limited_and_counted_back() -> None:
    with running(max_message=100_000, max_held=100_000) as run:
        peer = Peer(run.connect())
        peer.request(1, "Block", text("x" * 70_000))
        assert run.echo.blocked.acquire(timeout=SECONDS)
        peer.request(3, "Say", text("x" * 70_000))
        assert peer.refusal() == (3, Status.RESOURCE_EXHAUSTED)
        peer.request(3, "Say", text("small"))
        assert peer.refusal() == (3, Status.OK)
        run.echo.gate.set()
        assert peer.refusal() == (1, Status.OK)
        wait_until(lambda: run.server.held == 0)


def test_connections_are_limited() -> None:
    with running(max_connections=1) as run:
        first = Peer(run.connect())
        first.request(1, "Say", text("x"))
        assert first.refusal() == (1, Status.OK)
        near, far = socket.socketpair()
        with pytest.raises(ttrpc.TtrpcError, match="too many connections"):
            run.server.serve_connection(near)
        assert far.recv(1) == b""
        far.close()
        first.sock.close()


def test_flood_from_a_peer_that_reads_nothing_costs_bounded_memory_and_others_nothing() -> None:
    with running(max_held=1 << 20, max_message=1 << 20) as run:
        flooder, other = run.connect(), Peer(run.connect())
        flooder.setblocking(False)
        frame = frames.encode(2, frames.REQUEST, 0, bytes(60_000))
        tracemalloc.start()
        try:
            sent = idle = 0
            while idle < 50:
                try:
                    sent += flooder.send(frame)
                    idle = 0
                except BlockingIOError:
                    idle += 1
                    other.request(2 * (idle + sent) + 1, "Say", text("x"))
                    assert other.refusal()[1] == Status.OK
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert sent > len(frame)
        assert peak < 4 << 20
        flooder.close()


def test_close_frees_a_writer_whose_peer_does_not_read(run: Running) -> None:
    stuck = Peer(run.connect())
    stuck.request(1, "Big", Int32Value(value=4_000_000))
    stuck.request(3, "Big", Int32Value(value=4_000_000))
    other = Peer(run.connect())
    other.request(1, "Say", text("x"))
    assert other.refusal() == (1, Status.OK)
    wait_until(lambda: run.server.threads >= 2)
    run.server.close()
    run.join()
    wait_until(lambda: run.server.held == 0)
    stuck.sock.close()


def test_callback_of_a_handler_that_fails_is_logged_and_harms_nobody() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    class Service:
        def Say(self, request: StringValue, context: ttrpc.Context) -> StringValue:  # noqa: N802
            context.after_reply(fail)
            return request

    with running() as run:
        run.server.register_alias("other", ECHO, Service())
        with ttrpc.Client(run.connect()) as client:
            for _ in range(3):
                client.call("other", "Say", text("x"), StringValue, timeout=SECONDS)
        wait_until(lambda: len(run.log) == 3)
    assert all("ZeroDivisionError" in line for line in run.log)


frame_parts = st.tuples(
    st.integers(0, 9) | st.integers(0, 2**32 - 1),
    st.integers(0, 4),
    st.integers(0, 7),
    st.binary(max_size=60)
    | st.sampled_from(
        [
            envelope.encode_request(envelope.Request(NAME, method, text("x").SerializeToString(), timeout))
            for method in ("Say", "Fail", "Collect", "Count", "Chat", "Missing")
            for timeout in (0, -1, 10**9)
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(frame_parts, max_size=30), st.binary(max_size=40))
def test_any_sequence_of_frames_leaves_the_server_serving(
    parts: list[tuple[int, int, int, bytes]], tail: bytes
) -> None:
    with running() as run:
        hostile = run.connect()
        hostile.sendall(b"".join(frames.encode(*part) for part in parts) + tail)
        hostile.close()
        honest = Peer(run.connect())
        honest.request(1, "Say", text("x"))
        assert honest.refusal() == (1, Status.OK)
    assert [line for line in run.log if "Echo/Fail" not in line] == []


# --- the client's peers


class FakeServer:
    """A server's end that says what a test wants."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        far.settimeout(SECONDS)
        self.closed = threading.Event()
        self.client = ttrpc.Client(near, on_close=self.closed.set)
        self.echo = ttrpc.stub(self.client, ECHO)
        self.peer = Peer(far)

    def answer(self, stream_id: int, response: envelope.Response, type_: int = frames.RESPONSE) -> None:
        self.peer.send(stream_id, type_, 0, envelope.encode_response(response))


@pytest.fixture
def fake() -> Any:
    server = FakeServer()
    yield server
    server.client.close()
    server.client.join(SECONDS)
    server.peer.sock.close()


def failing(fake: FakeServer, *actions: Any, timeout: float | None = SECONDS) -> ttrpc.TtrpcError:
    """The error of a call to which the fake server reacts with ``actions``."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(fake.echo.Say, text("x"), timeout=timeout)
        assert fake.peer.receive() is not None
        for action in actions:
            action()
        error = call.exception(SECONDS)
    assert isinstance(error, ttrpc.TtrpcError)
    return error


def test_death_of_the_server_fails_all_calls_and_streams_and_is_reported_once(fake: FakeServer) -> None:
    stream = fake.echo.Chat()
    assert fake.peer.receive() is not None
    assert failing(fake, fake.peer.sock.close, timeout=None).code == Status.UNAVAILABLE
    with pytest.raises(ttrpc.TtrpcError) as caught:
        stream.recv(SECONDS)
    assert caught.value.code == Status.UNAVAILABLE
    assert fake.closed.wait(SECONDS)
    assert fake.client.closed
    with pytest.raises(ttrpc.TtrpcError) as caught:
        fake.echo.Say(text("x"), timeout=SECONDS)
    assert caught.value.code == Status.UNAVAILABLE


def test_closing_the_client_fails_its_calls(fake: FakeServer) -> None:
    assert failing(fake, fake.client.close, timeout=None).code == Status.UNAVAILABLE
    assert fake.closed.wait(SECONDS)


def test_messages_received_before_the_death_of_the_server_can_still_be_taken(fake: FakeServer) -> None:
    stream = fake.echo.Chat()
    assert fake.peer.receive() is not None
    fake.peer.send(1, frames.DATA, 0, text("last words").SerializeToString())
    fake.peer.sock.close()
    assert fake.closed.wait(SECONDS)
    assert stream.recv(SECONDS).value == "last words"
    with pytest.raises(ttrpc.TtrpcError):
        stream.recv(SECONDS)


@pytest.mark.parametrize(
    ("type_", "payload", "code"),
    [
        (frames.RESPONSE, b"\xff", Status.INTERNAL),
        (frames.RESPONSE, envelope.encode_response(envelope.Response(payload=b"\xff")), Status.INTERNAL),
        (frames.DATA, b"", Status.INTERNAL),
        (frames.RESPONSE, bytes(frames.MESSAGE_MAX + 1), Status.RESOURCE_EXHAUSTED),
        (frames.RESPONSE, envelope.encode_response(envelope.Response(99, "odd")), 99),
        (frames.RESPONSE, envelope.encode_response(envelope.Response(-7, "odd")), -7),
    ],
    ids=["no envelope", "no message", "data", "oversized", "unknown code", "negative code"],
)
def test_nonsense_in_answer_to_a_call_fails_that_call(fake: FakeServer, type_: int, payload: bytes, code: int) -> None:
    assert failing(fake, lambda: fake.peer.send(1, type_, 0, payload)).code == code


def test_nothing_is_kept_for_streams_that_nobody_opened(fake: FakeServer) -> None:
    def flood() -> None:
        for stream_id in range(2, 200):
            fake.peer.send(stream_id, frames.RESPONSE, 0, bytes(10_000))
        fake.answer(1, envelope.Response(5, "mine"))
        fake.answer(1, envelope.Response(6, "twice"))

    assert failing(fake, flood).message == "mine"
    assert fake.client._receivers == {}


def test_deadline_ends_calls_that_cannot_even_be_written(fake: FakeServer) -> None:
    for _ in range(2):
        with pytest.raises(ttrpc.TtrpcError) as caught:
            fake.echo.Say(text("x" * 4_000_000), timeout=0.05)
        assert caught.value.code == Status.DEADLINE_EXCEEDED
    assert fake.client._receivers == {}


def test_connection_stays_usable_after_a_deadline_in_the_middle_of_a_frame(fake: FakeServer) -> None:
    with pytest.raises(ttrpc.TtrpcError):
        fake.echo.Say(text("x" * 4_000_000), timeout=0.05)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(fake.echo.Say, text("y"), timeout=SECONDS)
        first, second = fake.peer.receive(), fake.peer.receive()
        assert first is not None
        assert second is not None
        assert (first.stream_id, first.length > 4_000_000) == (1, True)
        fake.answer(second.stream_id, envelope.Response(payload=text("y").SerializeToString()))
        assert call.result(SECONDS).value == "y"


def test_close_frees_a_caller_whose_server_does_not_read(fake: FakeServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(fake.echo.Say, text("x" * 4_000_000), timeout=None)
        fake.peer.sock.recv(1000)
        fake.client.close()
        error = call.exception(SECONDS)
    assert isinstance(error, ttrpc.TtrpcError)
    assert error.code == Status.UNAVAILABLE


@settings(max_examples=60, deadline=None)
@given(st.lists(frame_parts, max_size=20), st.binary(max_size=40))
def test_any_answer_leaves_the_client_with_a_result_or_an_error(
    parts: list[tuple[int, int, int, bytes]], tail: bytes
) -> None:
    fake = FakeServer()
    stream = fake.echo.Chat()
    fake.peer.sock.sendall(b"".join(frames.encode(*part) for part in parts) + tail)
    fake.peer.sock.close()
    with contextlib.suppress(ttrpc.TtrpcError):
        while stream.recv(SECONDS) is not None:
            pass
    fake.client.join(SECONDS)
    assert fake.closed.is_set()
    with pytest.raises(ttrpc.TtrpcError) as caught:
        fake.echo.Say(text("x"), timeout=SECONDS)
    assert caught.value.code == Status.UNAVAILABLE
