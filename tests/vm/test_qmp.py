# SPDX-License-Identifier: Apache-2.0
"""The QMP client against a peer that is programmed by the test."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parma_shim.vm.qmp import MAX_MESSAGE, Qmp, QmpError
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable
from tests.vm.support import soon

GREETING = {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}


class FakeQemu:
    """The other end of the monitor: answers each command with what ``reply`` returns."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.settimeout(60)
        self.commands: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.reply: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda _: [{"return": {}}]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, document: dict[str, Any]) -> None:
        self.far.sendall(json.dumps(document).encode() + b"\r\n")

    def _serve(self) -> None:
        buffer = b""
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(self.far, 65536, 4)
                if not data:
                    return
                self.descriptors += fds
                buffer += data
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    command = json.loads(line)
                    self.commands.append(command)
                    for answer in self.reply(command):
                        self.send({"id": command["id"], **answer} if "event" not in answer else answer)
        except OSError:
            return

    def close(self) -> None:
        if self.far.fileno() < 0:
            return
        self.far.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self.far.close()


@pytest.fixture
def qemu() -> Iterator[FakeQemu]:
    fake = FakeQemu()
    yield fake
    fake.close()


@pytest.fixture
def qmp(qemu: FakeQemu) -> Iterator[Qmp]:
    client = Qmp(qemu.near)
    yield client
    client.close()


def test_negotiation_reads_the_greeting_and_leaves_negotiation_mode(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.send(GREETING)
    assert qmp.negotiate(deadline=soon()) == {"qemu": {"major": 10}}
    assert [command["execute"] for command in qemu.commands] == ["qmp_capabilities"]


def test_a_peer_that_does_not_greet_is_refused(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.send({"hello": 1})
    with pytest.raises(Malformed, match="greet"):
        qmp.negotiate(deadline=soon())


def test_arguments_and_value_go_through(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda command: [{"return": [command["arguments"]]}]
    assert qmp.execute("x", {"a": "ü"}, deadline=soon()) == [{"a": "ü"}]


def test_a_refusal_names_command_and_reason(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda _: [{"error": {"class": "DeviceNotFound", "desc": "no such thing"}}]
    with pytest.raises(QmpError, match="device_del: no such thing") as caught:
        qmp.execute("device_del", deadline=soon())
    assert caught.value.name == "DeviceNotFound"


def test_events_between_command_and_answer_are_kept_for_who_waits(qemu: FakeQemu, qmp: Qmp) -> None:
    event = {"event": "DEVICE_DELETED", "data": {"device": "d1"}}
    qemu.reply = lambda _: [{"event": "OTHER"}, event, {"return": 1}]
    assert qmp.execute("x", deadline=soon()) == 1
    assert qmp.wait_event("DEVICE_DELETED", device="d1", deadline=soon()) == event
    with pytest.raises(DeadlineExceeded):
        qmp.wait_event("DEVICE_DELETED", device="d1", deadline=time.monotonic())


@pytest.mark.parametrize("data", [1, "d1", [], None])
def test_an_event_whose_data_are_none_is_malformed(qemu: FakeQemu, qmp: Qmp, data: object) -> None:
    qemu.reply = lambda _: [{"event": "DEVICE_DELETED", "data": data}, {"return": 1}]
    with pytest.raises(Malformed, match="an event that is none"):
        qmp.execute("query-status", deadline=soon())


def test_an_event_that_comes_later_is_waited_for(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.send({"event": "DEVICE_DELETED", "data": {"device": "d2"}})
    qemu.send({"event": "DEVICE_DELETED", "data": {"device": "d1"}})
    assert qmp.wait_event("DEVICE_DELETED", device="d1", deadline=soon())["data"] == {"device": "d1"}


def test_an_event_storm_is_held_in_bounded_memory(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda _: [*({"event": "E", "data": {"n": str(n)}} for n in range(500)), {"return": {}}]
    qmp.execute("x", deadline=soon())
    with pytest.raises(DeadlineExceeded):
        qmp.wait_event("E", n="0", deadline=time.monotonic())
    assert qmp.wait_event("E", n="499", deadline=soon())


def test_a_silent_qemu_runs_into_the_deadline(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda _: []
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        qmp.execute("x", deadline=began + 0.05)
    assert time.monotonic() - began < 30


def test_the_late_answer_to_an_abandoned_command_is_not_taken_for_the_next(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda _: []
    with pytest.raises(DeadlineExceeded):
        qmp.execute("slow", deadline=time.monotonic() + 0.05)
    qemu.reply = lambda _: [{"return": "late", "id": 1}, {"return": "right"}]
    assert qmp.execute("quick", deadline=soon()) == "right"


def test_the_end_of_qemu_fails_a_command_at_once(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.close()
    with pytest.raises(Unavailable, match="gone"):
        qmp.execute("x", deadline=soon())


def test_closing_ends_a_command_that_waits(qemu: FakeQemu, qmp: Qmp) -> None:
    arrived = threading.Event()

    def reply(command: dict[str, Any]) -> list[dict[str, Any]]:
        arrived.set()
        return []

    qemu.reply = reply
    errors: list[Exception] = []

    def run() -> None:
        try:
            qmp.execute("x", deadline=soon())
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert arrived.wait(60)
    qmp.close()
    thread.join(60)
    assert errors


@pytest.mark.parametrize("line", [b"not json\n", b"[1]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_nonsense_from_qemu_is_refused(qemu: FakeQemu, qmp: Qmp, line: bytes) -> None:
    qemu.far.sendall(line)
    with pytest.raises(Malformed):
        qmp.execute("x", deadline=soon())


def test_an_endless_line_is_refused(qemu: FakeQemu, qmp: Qmp) -> None:
    qemu.reply = lambda _: []
    flooded = b"x" * 65536

    def flood() -> None:
        try:
            for _ in range(2 * MAX_MESSAGE // 65536):
                qemu.far.sendall(flooded)
        except OSError:
            return

    thread = threading.Thread(target=flood)
    thread.start()
    with pytest.raises(Malformed, match="too long"):
        qmp.execute("x", deadline=soon())
    qmp.close()
    thread.join(60)


def test_a_descriptor_travels_with_its_command(qemu: FakeQemu, qmp: Qmp) -> None:
    reader, writer = os.pipe()
    qmp.execute("add-fd", {"fdset-id": 0}, deadline=soon(), descriptor=writer)
    os.close(writer)
    (received,) = qemu.descriptors
    os.write(received, b"through")
    os.close(received)
    assert os.read(reader, 100) == b"through"
    os.close(reader)
