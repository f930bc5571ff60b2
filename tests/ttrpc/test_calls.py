# SPDX-License-Identifier: Apache-2.0
"""Unary calls: answers, errors, deadlines, many at once."""

from __future__ import annotations

import errno
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

import ttrpc
from tests.ttrpc.support import ECHO, NAME, SECONDS, Echo, Peer, Running, running, wait_until
from ttrpc import Status, envelope, frames


def failure(call: Any, *arguments: Any, **options: Any) -> ttrpc.TtrpcError:
    with pytest.raises(ttrpc.TtrpcError) as caught:
        call(*arguments, **options)
    return caught.value


def test_call_returns_the_answer(echo: Any) -> None:
    assert echo.Say(StringValue(value="hello"), timeout=SECONDS).value == "hello"


def test_empty_messages_travel_both_ways(echo: Any) -> None:
    assert echo.Say(StringValue(), timeout=None) == StringValue()


@pytest.mark.parametrize("code", [3, 5, 6, 7, 9, 12, 14, 16])
def test_handler_error_reaches_the_client_with_code_and_text(echo: Any, code: int) -> None:
    error = failure(echo.Fail, Int32Value(value=code), timeout=SECONDS)
    assert (error.code, error.message) == (code, "as asked")


@pytest.mark.parametrize("value", [1, 2], ids=["SystemExit", "ZeroDivisionError"])
def test_unexpected_exception_is_logged_and_its_text_kept_from_the_client(run: Running, echo: Any, value: int) -> None:
    error = failure(echo.Fail, Int32Value(value=value), timeout=SECONDS)
    assert (error.code, error.message) == (Status.UNKNOWN, "the server failed")
    assert "secret" in run.log[0]
    assert "ttrpc.test.v1.Echo/Fail" in run.log[0]
    assert echo.Say(StringValue(value="still there"), timeout=SECONDS).value == "still there"


def test_lack_of_descriptors_is_told_to_the_client(echo: Any) -> None:
    error = failure(echo.Fail, Int32Value(value=-errno.EMFILE), timeout=SECONDS)
    assert error.code == Status.RESOURCE_EXHAUSTED
    assert error.message == "the server is out of resources: Too many open files"


def test_a_failure_is_answered_and_logged_when_nothing_can_be_imported(
    run: Running, echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "traceback", None)
    error = failure(echo.Fail, Int32Value(value=2), timeout=SECONDS)
    assert (error.code, error.message) == (Status.UNKNOWN, "the server failed")
    assert "ZeroDivisionError('secret')" in run.log[0]


def test_exception_with_a_number_that_is_no_status_is_unexpected(echo: Any) -> None:
    assert failure(echo.Fail, Int32Value(value=404), timeout=SECONDS).code == Status.UNKNOWN


def test_unknown_service_and_method_are_unimplemented(client: ttrpc.Client, echo: Any) -> None:
    error = failure(client.call, "no.Such", "Say", Empty(), Empty, timeout=SECONDS)
    assert (error.code, error.message) == (Status.UNIMPLEMENTED, "service no.Such")
    error = failure(echo.Missing, Empty(), timeout=SECONDS)
    assert (error.code, error.message) == (Status.UNIMPLEMENTED, "method Missing")


def test_service_answers_under_an_alias() -> None:
    with running() as run:
        run.server.register_alias("ttrpc.test.v0.Echo", ECHO, run.echo)
        with ttrpc.Client(run.connect()) as client:
            old = ttrpc.stub(client, ECHO, "ttrpc.test.v0.Echo")
            assert old.Say(StringValue(value="x"), timeout=SECONDS).value == "x"
            assert ttrpc.stub(client, ECHO).Say(StringValue(value="y"), timeout=SECONDS).value == "y"


def test_registering_a_name_twice_or_something_else_altogether_is_an_error() -> None:
    server = ttrpc.Server()
    server.register(ECHO, Echo())
    with pytest.raises(ValueError, match="registered already"):
        server.register(ECHO, Echo())
    with pytest.raises(TypeError, match="implements no method"):
        server.register_alias("other", ECHO, object())


def test_payload_that_is_no_message_is_an_invalid_argument(peer: Peer) -> None:
    body = envelope.encode_request(envelope.Request(NAME, "Say", b"\xff"))
    peer.send(1, frames.REQUEST, 0, body)
    assert peer.refusal() == (1, Status.INVALID_ARGUMENT)


def test_metadata_reaches_the_handler(echo: Any) -> None:
    sent = {"containerd-namespace-ttrpc": "default"}
    answer = echo.Metadata(StringValue(value="containerd-namespace-ttrpc"), timeout=SECONDS, metadata=sent)
    assert answer.value == "default"


def test_handler_knows_the_clients_deadline(echo: Any) -> None:
    assert 10_000 < echo.Deadline(Empty(), timeout=20).value <= 20_000
    assert echo.Deadline(Empty(), timeout=None).value == -1
    assert echo.Deadline(Empty(), timeout=10**9).value == -1  # nobody can wait for that


def test_negative_timeout_is_a_deadline_that_has_passed(peer: Peer) -> None:
    peer.send(1, frames.REQUEST, 0, envelope.encode_request(envelope.Request(NAME, "Say", b"", -1)))
    assert peer.refusal() == (1, Status.DEADLINE_EXCEEDED)


def test_call_without_an_answer_ends_at_its_deadline_and_leaves_the_connection_usable(run: Running, echo: Any) -> None:
    assert failure(echo.Block, StringValue(), timeout=0.05).code == Status.DEADLINE_EXCEEDED
    run.echo.gate.set()
    assert echo.Say(StringValue(value="x"), timeout=SECONDS).value == "x"


def test_late_answer_to_an_abandoned_call_is_dropped(run: Running, client: ttrpc.Client, echo: Any) -> None:
    assert failure(echo.Block, StringValue(value="late"), timeout=0.05).code == Status.DEADLINE_EXCEEDED
    run.echo.gate.set()
    for number in range(20):
        assert echo.Block(StringValue(value=str(number)), timeout=SECONDS).value == str(number)
    assert client._receivers == {}


def test_longest_message_passes_and_a_longer_one_fails_alone(echo: Any) -> None:
    assert len(echo.Big(Int32Value(value=frames.MESSAGE_MAX - 64), timeout=SECONDS).value) == frames.MESSAGE_MAX - 64
    assert failure(echo.Big, Int32Value(value=frames.MESSAGE_MAX), timeout=SECONDS).code == Status.RESOURCE_EXHAUSTED
    too_long = StringValue(value="x" * frames.MESSAGE_MAX)
    assert failure(echo.Say, too_long, timeout=SECONDS).code == Status.RESOURCE_EXHAUSTED
    assert echo.Say(StringValue(value="x"), timeout=SECONDS).value == "x"


def test_answer_longer_than_the_client_accepts_fails_that_call_alone(run: Running) -> None:
    with ttrpc.Client(run.connect(), max_message=1000) as client:
        echo = ttrpc.stub(client, ECHO)
        assert failure(echo.Big, Int32Value(value=1000), timeout=SECONDS).code == Status.RESOURCE_EXHAUSTED
        assert len(echo.Big(Int32Value(value=900), timeout=SECONDS).value) == 900


def test_requests_overtake_one_that_blocks(run: Running, echo: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(echo.Block, StringValue(value="slow"), timeout=SECONDS)
        assert run.echo.blocked.acquire(timeout=SECONDS)
        assert echo.Say(StringValue(value="fast"), timeout=SECONDS).value == "fast"
        run.echo.gate.set()
        assert blocked.result(SECONDS).value == "slow"


def test_each_of_many_concurrent_calls_gets_its_own_answer(echo: Any) -> None:
    texts = [f"{number}-" * 50 for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda text: echo.Say(StringValue(value=text), timeout=SECONDS).value, texts)
        assert list(answers) == texts


def test_hundreds_of_blocked_calls_are_answered_once_let_go(run: Running, echo: Any) -> None:
    with ThreadPoolExecutor(300) as pool:
        calls = [pool.submit(echo.Block, StringValue(value=str(n)), timeout=SECONDS) for n in range(300)]
        for _ in calls:
            assert run.echo.blocked.acquire(timeout=SECONDS)
        assert run.server.threads >= 300
        run.echo.gate.set()
        assert [call.result(SECONDS).value for call in calls] == [str(n) for n in range(300)]


def test_worker_threads_are_reused_and_end_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.workers.IDLE_SECONDS", 0.05)
    with running() as run, ttrpc.Client(run.connect()) as client:
        echo = ttrpc.stub(client, ECHO)
        for _ in range(50):
            echo.Say(StringValue(), timeout=SECONDS)
            wait_until(lambda: len(run.server._workers._idle) == run.server.threads)
            assert run.server.threads <= 1
        wait_until(lambda: run.server.threads == 0)
        assert echo.Say(StringValue(value="again"), timeout=SECONDS).value == "again"


def test_writes_are_cut_to_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(write_chunk=100) as run:
        sock = run.connect()
        with ttrpc.Client(sock, write_chunk=64) as client:
            echo = ttrpc.stub(client, ECHO)
            text = "x" * 100_000
            assert echo.Say(StringValue(value=text), timeout=SECONDS).value == text


def test_callback_after_the_reply_runs_when_the_answer_is_written() -> None:
    order: list[str] = []

    class Service:
        def Say(self, request: StringValue, context: ttrpc.Context) -> StringValue:  # noqa: N802
            context.after_reply(lambda: order.append("after reply"))
            context.after_reply(done.set)
            order.append("handler")
            return request

    done = threading.Event()
    with running() as run:
        run.server.register_alias("other", ECHO, Service())
        with ttrpc.Client(run.connect()) as client:
            client.call("other", "Say", StringValue(), StringValue, timeout=SECONDS)
            assert done.wait(SECONDS)
    assert order == ["handler", "after reply"]


def test_stack_of_a_handler_holds_the_deepest_recursion_in_c() -> None:
    import json

    class Service:
        def Say(self, request: StringValue, _context: ttrpc.Context) -> StringValue:  # noqa: N802
            try:
                json.loads(request.value)
            except RecursionError:
                return StringValue(value="refused")
            return StringValue(value="accepted")

    with running() as run:
        run.server.register_alias("other", ECHO, Service())
        with ttrpc.Client(run.connect()) as client:
            nested = StringValue(value='{"a":' * 100_000)
            assert client.call("other", "Say", nested, StringValue, timeout=SECONDS).value == "refused"
