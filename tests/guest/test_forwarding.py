# SPDX-License-Identifier: Apache-2.0
"""Connections of the host to containers' ports: what is refused, and what a hostile host makes of one that is not."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_guest.network_requests import configure_network
from parma_guest.syscalls import Kernel
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unavailable
from parma_wire.limits import MAX_FORWARDED, MAX_STREAM_DATA, STREAM_WINDOW
from tests.guest import group_steps, test_network
from tests.guest.fakes import FakeForward, Rig
from tests.guest.test_network import away, needs_root, network, request

PORT = 8080


@pytest.fixture
def listener(rig: Rig) -> Iterator[socket.socket]:
    """What a container has on its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        rig.network.listeners[PORT] = listener.getsockname()
        yield listener


class Served:
    """A connection that is being forwarded: both of its ends, and how serving it ended."""

    def __init__(self, rig: Rig, listener: socket.socket) -> None:
        self.stream = FakeForward(PORT)
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(rig,), daemon=True)
        self._thread.start()
        self.application, _ = listener.accept()
        self.application.settimeout(60)

    def _run(self, rig: Rig) -> None:
        try:
            rig.group.forwarder.serve(self.stream)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self._failure.append(error)

    def end(self) -> BaseException | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._failure[0] if self._failure else None


@pytest.fixture
def served(rig: Rig, listener: socket.socket) -> Iterator[Served]:
    served = Served(rig, listener)
    yield served
    served.application.close()
    served.stream.incoming.put(None)
    served.end()


def reset(application: socket.socket) -> bool:
    """Both directions have ended. Where a connection is closed in peace, the application's own is still open."""
    poll = select.poll()
    poll.register(application, 0)  # POLLHUP is reported nevertheless
    return bool(poll.poll(60_000))


def test_the_policy_is_asked_for_the_port_and_a_denial_connects_to_nobody(rig: Rig, listener: socket.socket) -> None:
    rig.engine.deny.add("forward_port")
    with pytest.raises(Denied, match="forward_port denied: because"):
        rig.group.forwarder.serve(FakeForward(PORT))
    assert rig.engine.requests == [("forward_port", {"port": PORT})]
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert rig.state == ()


@pytest.mark.parametrize("port", [0, 65536, 2**32 - 1])
def test_what_is_no_port_is_malformed(rig: Rig, port: int) -> None:
    with pytest.raises(Malformed, match="no such port"):
        rig.group.forwarder.serve(FakeForward(port))
    assert rig.engine.requests == []


def test_a_connection_begins_with_its_port(rig: Rig) -> None:
    stream = FakeForward(PORT)
    stream.incoming.get()
    stream.give(data=b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(Malformed, match="begins with an 'open' frame"):
        rig.group.forwarder.serve(stream)
    assert rig.engine.requests == []


def test_a_port_that_nobody_listens_on_is_unavailable(rig: Rig) -> None:
    with pytest.raises(Unavailable, match="nobody accepts connections to port 9"):
        rig.group.forwarder.serve(FakeForward(9))


def test_endpoints_of_attestation_are_for_their_container_only(rig: Rig, listener: socket.socket) -> None:
    """Whatever ports the policy lists: on loopback they would take the host for the container."""
    group_steps.rootfs(rig)
    rig.group.configure_network((interface(),))
    rig.attestation.session.listens = True
    rig.group.create(group_steps.creation())
    with pytest.raises(Denied, match="endpoints of attestation"):
        rig.group.forwarder.serve(FakeForward(PORT))
    application, _ = listener.accept()
    with application:
        assert application.recv(100) == b""


def interface() -> Any:
    return configure_network(request(test_network.interface()))[0]


def test_bytes_go_both_ways_and_each_direction_ends_by_itself(served: Served) -> None:
    served.stream.give(data=b"ping")
    assert served.application.recv(100) == b"ping"
    assert served.stream.take().window_update == 4
    served.stream.give(eof=True)
    assert served.application.recv(100) == b""
    served.application.sendall(b"pong")
    assert served.stream.take().data == b"pong"
    served.application.close()
    assert served.stream.take().eof
    served.stream.give(window_update=4)
    assert served.end() is None


def test_no_more_than_the_window_is_outstanding_and_the_other_direction_goes_on(served: Served) -> None:
    sender = threading.Thread(target=served.application.sendall, args=(bytes(2 * STREAM_WINDOW),))
    sender.start()
    received = 0
    while received < STREAM_WINDOW:
        received += len(served.stream.take().data)
    assert received == STREAM_WINDOW
    served.stream.give(data=b"still here")
    assert served.stream.take().window_update == 10  # and not more data
    while received < 2 * STREAM_WINDOW:
        served.stream.give(window_update=MAX_STREAM_DATA)
        received += len(served.stream.take().data)
    sender.join(60)
    assert not sender.is_alive()


MORE_THAN_THE_KERNEL_HOLDS = 2 * int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2]) // STREAM_WINDOW

HOSTILE: dict[str, list[dict[str, Any]]] = {
    "more than the window at once": [{"data": bytes(STREAM_WINDOW + 1)}],
    "more than the window in the end": [{"data": bytes(STREAM_WINDOW)}] * MORE_THAN_THE_KERNEL_HOLDS,
    "acknowledges what was not sent": [{"window_update": 1}],
    "an end after the end": [{"eof": True}, {"eof": True}],
    "data after the end": [{"eof": True}, {"data": b"x"}],
    "opens it again": [{"open": pb.ForwardOpen(port=22)}],
    "nothing": [{}],
}


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
def test_a_host_that_breaks_the_rules_loses_the_connection(served: Served, frames: list[dict[str, Any]]) -> None:
    served.application.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # so that what the host sends has to wait
    for frame in frames:
        served.stream.give(**frame)
    assert isinstance(served.end(), Malformed)
    assert reset(served.application)


def test_a_host_that_goes_in_the_middle_resets_the_connection(served: Served) -> None:
    served.stream.give(data=b"half of")
    assert served.application.recv(100) == b"half of"
    served.stream.incoming.put(None)
    assert isinstance(served.end(), Unavailable)
    assert reset(served.application)


def test_a_host_that_goes_without_having_acknowledged_all_does_not_keep_its_place(served: Served) -> None:
    served.stream.give(eof=True)
    served.application.sendall(b"all of it")
    served.application.shutdown(socket.SHUT_WR)
    while not served.stream.take().eof:
        pass
    served.stream.incoming.put(None)
    assert isinstance(served.end(), Unavailable)


def test_a_container_that_resets_the_connection_ends_it(served: Served) -> None:
    served.application.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    served.application.close()
    assert isinstance(served.end(), Unavailable)


def test_connections_are_bounded_and_places_become_free(rig: Rig, listener: socket.socket) -> None:
    connections = [Served(rig, listener) for _ in range(MAX_FORWARDED)]
    with pytest.raises(FailedPrecondition, match="too many connections"):
        rig.group.forwarder.serve(FakeForward(PORT))
    connections[0].stream.incoming.put(None)
    connections[0].end()
    connections[0].application.close()
    connections[0] = Served(rig, listener)
    for connection in connections:
        connection.stream.incoming.put(None)
        connection.end()
        connection.application.close()


@needs_root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_containers_loopback_is_not_the_enforcers(tmp_path: Path, address: str) -> None:
    def work() -> None:
        with network(tmp_path) as (made, path):
            made.namespace()
            with pytest.raises(ConnectionRefusedError):
                made.connect(PORT)
            with in_namespace(path, lambda: socket.create_server((address, PORT), family=family(address))) as listener:
                made.connect(PORT).close()
                accepted, _ = listener.accept()
                with accepted:
                    assert accepted.getsockname()[:2] == (address, PORT)

    away(work)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def in_namespace(path: str, make: Callable[[], socket.socket]) -> socket.socket:
    made: list[socket.socket] = []

    def run() -> None:
        namespace = os.open(path, os.O_RDONLY)
        try:
            Kernel().enter_network(namespace)
        finally:
            os.close(namespace)
        made.append(make())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]
