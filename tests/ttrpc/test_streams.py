# SPDX-License-Identifier: Apache-2.0
"""Streams: all shapes, both ends closing, bounded queues."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

import ttrpc
from tests.ttrpc.support import ECHO, SECONDS, Peer, Running, running, wait_until
from ttrpc import Status, frames, inbox

RC, RO, ND = frames.REMOTE_CLOSED, frames.REMOTE_OPEN, frames.NO_DATA


def text(value: str) -> StringValue:
    return StringValue(value=value)


def received(stream: ttrpc.ClientStream) -> list[str]:
    values = []
    while (message := stream.recv(SECONDS)) is not None:
        values.append(message.value)
    return values


def test_client_streams_and_gets_one_answer(echo: Any) -> None:
    with echo.Collect() as stream:
        for part in ["a", "", "b"]:
            stream.send(text(part))
        stream.close_send()
        assert received(stream) == ["ab"]


def test_client_that_streams_nothing_gets_an_empty_answer(echo: Any) -> None:
    with echo.Collect() as stream:
        stream.close_send()
        assert received(stream) == [""]


def test_server_streams_and_ends(echo: Any) -> None:
    with echo.Count(Int32Value(value=300)) as stream:
        assert received(stream) == [str(number) for number in range(300)]
        assert stream.recv(SECONDS) is None


def test_server_stream_works_for_an_empty_request(echo: Any) -> None:
    with echo.Count(Int32Value()) as stream:
        assert received(stream) == []


def test_both_sides_stream_until_the_client_closes(echo: Any) -> None:
    with echo.Chat() as stream:
        for number in range(100):
            stream.send(text(str(number)))
            assert stream.recv(SECONDS).value == str(number)
        stream.close_send()
        assert stream.recv(SECONDS) is None


def test_server_ends_a_stream_that_the_client_holds_open(client: ttrpc.Client, echo: Any) -> None:
    with echo.Chat() as stream:
        stream.send(text("leave"))
        assert stream.recv(SECONDS) is None
    assert client._receivers == {}


def test_server_ends_a_stream_with_a_status(echo: Any) -> None:
    with echo.Chat() as stream:
        stream.send(text("one"))
        stream.send(text("fail"))
        assert stream.recv(SECONDS).value == "one"
        with pytest.raises(ttrpc.TtrpcError, match="as asked") as caught:
            stream.recv(SECONDS)
        assert caught.value.code == Status.FAILED_PRECONDITION


def test_sending_after_closing_ones_side_is_an_error(echo: Any) -> None:
    with echo.Chat() as stream:
        stream.close_send()
        stream.close_send()
        with pytest.raises(ttrpc.TtrpcError) as caught:
            stream.send(text("x"))
        assert caught.value.code == Status.FAILED_PRECONDITION
    with echo.Count(Int32Value(value=1)) as stream, pytest.raises(ttrpc.TtrpcError):
        stream.send(text("x"))


def test_receiving_times_out_and_can_be_repeated(echo: Any) -> None:
    with echo.Chat() as stream:
        with pytest.raises(ttrpc.TtrpcError) as caught:
            stream.recv(0.02)
        assert caught.value.code == Status.DEADLINE_EXCEEDED
        stream.send(text("x"))
        assert stream.recv(SECONDS).value == "x"


def test_closing_a_stream_ends_the_handler(run: Running, client: ttrpc.Client, echo: Any) -> None:
    stream = echo.Chat()
    stream.send(text("x"))
    assert stream.recv(SECONDS).value == "x"
    stream.close()
    assert run.echo.stream_ended.wait(SECONDS)
    assert run.echo.stream_errors == []
    assert client._receivers == {}
    assert echo.Say(text("usable"), timeout=SECONDS).value == "usable"


def test_streams_and_calls_share_a_connection(echo: Any) -> None:
    with echo.Chat() as first, echo.Chat() as second:
        for number in range(20):
            first.send(text(f"a{number}"))
            second.send(text(f"b{number}"))
            assert echo.Say(text("c"), timeout=SECONDS).value == "c"
            assert second.recv(SECONDS).value == f"b{number}"
            assert first.recv(SECONDS).value == f"a{number}"


def test_last_message_may_carry_the_closing_flag(peer: Peer) -> None:
    peer.request(1, "Collect", flags=RO)
    peer.send(1, frames.DATA, 0, text("a").SerializeToString())
    peer.send(1, frames.DATA, RC, text("b").SerializeToString())
    stream_id, response = peer.response()
    assert (stream_id, StringValue.FromString(response.payload).value) == (1, "ab")


def test_empty_frame_without_the_no_data_flag_is_an_empty_message(peer: Peer) -> None:
    peer.request(1, "Chat", flags=RO)
    peer.send(1, frames.DATA)
    assert peer.receive() == frames.Frame(1, frames.DATA, 0, 0, b"")
    peer.send(1, frames.DATA, RC | ND)
    assert peer.receive() == frames.Frame(1, frames.DATA, RC | ND, 0, b"")


@pytest.mark.parametrize("flags", [0, RC])
def test_request_that_does_not_say_more_follows_ends_the_clients_side(peer: Peer, flags: int) -> None:
    peer.request(1, "Collect", text("only"), flags=flags)
    _, response = peer.response()
    assert StringValue.FromString(response.payload).value == "only"


@pytest.mark.parametrize("stream_id", [1, 3], ids=["finished", "never opened"])
def test_data_for_a_stream_that_is_not_open_is_refused(run: Running, peer: Peer, stream_id: int) -> None:
    peer.request(1, "Chat", flags=RC)
    assert peer.receive() == frames.Frame(1, frames.DATA, RC | ND, 0, b"")
    wait_until(lambda: run.server.held == 0)  # stream 1 is forgotten
    peer.send(stream_id, frames.DATA, 0, b"")
    assert peer.refusal() == (stream_id, Status.INVALID_ARGUMENT)


def test_data_after_the_client_closed_its_side_ends_the_stream(run: Running, peer: Peer) -> None:
    peer.request(1, "Chat", flags=RO)
    peer.send(1, frames.DATA, 0, text("block").SerializeToString())
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.send(1, frames.DATA, RC | ND)
    peer.send(1, frames.DATA, 0, text("more").SerializeToString())
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)
    assert run.echo.cancelled.wait(SECONDS)


def test_data_for_a_unary_call_ends_the_call(run: Running, peer: Peer) -> None:
    peer.request(1, "Block", text("x"))
    assert run.echo.blocked.acquire(timeout=SECONDS)
    peer.send(1, frames.DATA, 0, b"")
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)
    run.echo.gate.set()
    peer.request(3, "Say", text("x"))
    assert peer.response()[0] == 3  # and nothing more for stream 1


def test_data_that_is_no_message_reaches_the_handler_as_an_error(run: Running, peer: Peer) -> None:
    peer.request(1, "Chat", flags=RO)
    peer.send(1, frames.DATA, 0, b"\xff")
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)
    assert [error.code for error in run.echo.stream_errors] == [Status.INVALID_ARGUMENT]


def test_stream_whose_handler_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.inbox.Inbox.put.__defaults__", (0.0,), raising=True)
    with running() as run:
        peer = Peer(run.connect())
        peer.request(1, "Chat", flags=RO)
        peer.send(1, frames.DATA, 0, text("block").SerializeToString())
        assert run.echo.blocked.acquire(timeout=SECONDS)
        for _ in range(inbox.MAX_MESSAGES + 1):
            peer.send(1, frames.DATA, 0, text("x").SerializeToString())
        assert peer.refusal() == (1, Status.RESOURCE_EXHAUSTED)
        assert run.echo.cancelled.wait(SECONDS)
        wait_until(lambda: run.server.held < 100)  # what was queued is dropped while the handler still runs
        peer.sock.close()


def test_slow_handler_holds_the_sender_back_without_loss(run: Running, echo: Any) -> None:
    with echo.Collect() as stream:
        for _ in range(20 * inbox.MAX_MESSAGES):
            stream.send(text("x"))
        stream.close_send()
        assert received(stream) == ["x" * 20 * inbox.MAX_MESSAGES]


def test_stream_that_the_client_does_not_take_is_given_up_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.inbox.Inbox.put.__defaults__", (0.0,), raising=True)
    with running() as run, ttrpc.Client(run.connect()) as client:
        echo = ttrpc.stub(client, ECHO)
        stream = echo.Count(Int32Value(value=10 * inbox.MAX_MESSAGES))
        wait_until(lambda: not client._receivers)
        assert echo.Say(text("x"), timeout=SECONDS).value == "x"
        with pytest.raises(ttrpc.TtrpcError) as caught:
            received(stream)
        assert caught.value.code == Status.RESOURCE_EXHAUSTED


def test_inbox_bounds_bytes_and_counts_exactly_what_leaves_it() -> None:
    left: list[int] = []
    box = inbox.Inbox(left.append)
    big = bytes(inbox.MAX_BYTES - 1)
    assert box.put(big, 0)
    assert box.put(b"xx", 0)
    assert not box.put(b"yyy", 0)
    assert left == [3]
    assert box.get() == big
    assert left == [3, len(big)]
    assert box.put(b"zzzz", 0)
    box.fail(ttrpc.TtrpcError(5, "gone"))
    box.fail(ttrpc.TtrpcError(6, "again"))
    assert left == [3, len(big), 6]
    assert box.put(b"dropped", 0)
    assert left == [3, len(big), 6, 7]
    with pytest.raises(ttrpc.TtrpcError, match="gone"):
        box.get()
