# SPDX-License-Identifier: Apache-2.0
"""Events: in order, and not lost while containerd is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ttrpc
from parma_shim import events
from parma_shim.api import events_pb2
from tests.shim.support import FakeContainerd, Log, eventually


@pytest.fixture
def publisher(short_path: Path) -> Iterator[events.Publisher]:
    made = events.Publisher(str(short_path / "c.sock.ttrpc"), "ns", Log(), backoff=(0.01,))
    yield made
    made.close()


def publish(publisher: events.Publisher, number: int, topic: str = "/tasks/exit") -> None:
    publisher.publish(topic, events_pb2.TaskExit(container_id=f"c{number}", exit_status=number))


def numbers(containerd: FakeContainerd) -> list[int]:
    return [event.exit_status for event in containerd.exits()]


def test_an_event_arrives_with_topic_namespace_type_and_time(
    publisher: events.Publisher, containerd: FakeContainerd
) -> None:
    publish(publisher, 7)
    assert publisher.flush(10)
    (envelope,) = containerd.envelopes
    assert (envelope.topic, envelope.namespace) == ("/tasks/exit", "ns")
    assert envelope.event.type_url == "containerd.events.TaskExit"
    assert envelope.timestamp.seconds > 1_600_000_000


def test_events_arrive_in_the_order_of_publishing(publisher: events.Publisher, containerd: FakeContainerd) -> None:
    for number in range(300):
        publish(publisher, number)
    assert publisher.flush(10)
    assert numbers(containerd) == list(range(300))


def test_events_wait_for_a_containerd_that_is_away(publisher: events.Publisher, short_path: Path) -> None:
    for number in range(3):
        publish(publisher, number)
    assert not publisher.flush(0.05)
    late = FakeContainerd(short_path / "c.sock.ttrpc")
    late.start()
    assert publisher.flush(10)
    assert numbers(late) == [0, 1, 2]
    late.stop()


def test_a_containerd_that_restarts_gets_the_rest_on_a_new_connection(
    publisher: events.Publisher, containerd: FakeContainerd
) -> None:
    publish(publisher, 0)
    assert publisher.flush(10)
    containerd.stop()
    publish(publisher, 1)
    publish(publisher, 2)
    assert not publisher.flush(0.05)
    containerd.start()
    assert publisher.flush(10)
    assert numbers(containerd) == [0, 1, 2]


def test_an_event_that_containerd_refuses_is_given_up_and_the_next_one_sent(
    publisher: events.Publisher, containerd: FakeContainerd
) -> None:
    containerd.refuse = ttrpc.TtrpcError(ttrpc.Status.INVALID_ARGUMENT, "no such topic")
    publish(publisher, 0)
    assert publisher.flush(10)
    assert publisher.dropped == 1
    containerd.refuse = None
    publish(publisher, 1)
    assert publisher.flush(10)
    assert numbers(containerd) == [1]


def test_an_exit_is_kept_for_a_shortage_that_may_be_our_own(
    publisher: events.Publisher, containerd: FakeContainerd
) -> None:
    containerd.refuse = ttrpc.TtrpcError(ttrpc.Status.RESOURCE_EXHAUSTED, "no thread")
    publish(publisher, 0)
    assert not publisher.flush(0.5)
    containerd.refuse = None
    assert publisher.flush(10)
    assert (numbers(containerd), publisher.dropped) == ([0], 0)


def test_an_unexpected_error_of_ours_delays_events_and_loses_none(containerd: FakeContainerd, short_path: Path) -> None:
    attempts = []

    def connect(address: str) -> events.Connection:
        attempts.append(address)
        if len(attempts) < 3:
            raise RuntimeError("can't start new thread")
        return events._connect(address)

    publisher = events.Publisher(str(short_path / "c.sock.ttrpc"), "ns", Log(), connect=connect, backoff=(0.01,))
    publish(publisher, 0)
    assert publisher.flush(10)
    assert (numbers(containerd), publisher.dropped, len(attempts)) == ([0], 0, 3)
    publisher.close()


def test_a_full_queue_drops_progress_before_exits(publisher: events.Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_QUEUED", 5)
    publish(publisher, 0)
    publish(publisher, 1, "/tasks/start")
    for number in range(2, 6):
        publish(publisher, number)
    assert publisher.dropped == 1
    publish(publisher, 6)
    assert publisher.dropped == 2


def test_without_an_address_events_are_nobodys() -> None:
    publisher = events.Publisher("", "ns", Log())
    publish(publisher, 0)
    assert publisher.flush(0)


def test_the_thread_ends_when_there_is_nothing_to_do(
    publisher: events.Publisher, containerd: FakeContainerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LINGER", 0.01)
    publish(publisher, 0)
    assert publisher.flush(10)
    eventually(lambda: not publisher._running, "the thread's end")
    publish(publisher, 1)
    assert publisher.flush(10)
    assert numbers(containerd) == [0, 1]
