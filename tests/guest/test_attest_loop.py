# SPDX-License-Identifier: Apache-2.0
"""The agent's loop over real sockets: device and endpoints at once, whatever one client does."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from parma_guest.attest import agent, fuse
from parma_guest.attest.agent import Agent, Enforcer
from parma_guest.attest.channel import Setup
from parma_guest.attest.service import Access, Answerer
from parma_policy.attestation import NAMES
from tests.guest.attest_fakes import HOST_DATA, IDENTITY, REPORT, FakeTee
from tests.guest.test_cuse import header

PATHS = tuple(name for name in NAMES if name.startswith(("/attest", "/key", "/aa")))


class Served:
    """An agent in a thread, with a device and an HTTP endpoint, answered by the enforcer's side."""

    def __init__(self, *reachable: str, clock: Callable[[], float] | None = None) -> None:
        self.tee = FakeTee()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(60)
        self._enforcer_end, self._agent_end, self._device = ours, theirs, device
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        paths = tuple(name for name in reachable if name in PATHS)
        setup = Setup(True, paths, (8080,), "", "")
        options = {} if clock is None else {"clock": clock}
        self._agent = Agent(setup, [listener], device.fileno(), Enforcer(theirs), **options)
        target = Answerer(self.tee, Access(frozenset(reachable), IDENTITY), HOST_DATA)
        self._threads = [
            threading.Thread(target=target.serve, args=(ours,)),
            threading.Thread(target=self._run, args=(theirs, listener)),
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, control: socket.socket, listener: socket.socket) -> None:
        with listener:
            self._agent.run(control)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)

    def request(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def close(self) -> None:
        self._enforcer_end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for sock in (self._agent_end, self._device, self.kernel):
            sock.close()


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(*NAMES)
    yield made
    made.close()


STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"


def test_device_and_endpoints_are_served_by_one_loop(served: Served) -> None:
    served.kernel.send(header(fuse.OPEN))
    assert struct.unpack_from("<IiQ", served.kernel.recv(100)) == (32, 0, 7)
    body = json.dumps({"runtime_data": "YQ=="}).encode()
    head = b"POST /attest/raw HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = served.request(head + body)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"report": REPORT.hex()}
    assert served.tee.reports[0][0][32:] == bytes(32)


def test_a_refused_request_gets_its_answer_before_the_end(served: Served) -> None:
    assert served.request(b"BAD\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    with served.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_more_connections_than_there_is_room_for_wait_for_their_turn(served: Served) -> None:
    idle = [served.connect() for _ in range(agent.MAX_CONNECTIONS)]
    late = served.connect()
    late.sendall(STATUS)
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.recv(1)
    idle.pop().close()
    late.settimeout(60)
    assert b"Status OK" in read_all(late)
    for sock in (*idle, late):
        sock.close()


def test_a_client_that_dawdles_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "REQUEST_SECONDS", 0.2)
    served = Served(*NAMES)
    try:
        with served.connect() as sock:
            sock.sendall(b"GET /sta")
            assert read_all(sock) == b""
        assert b"Status OK" in served.request(STATUS)
    finally:
        served.close()


def test_a_client_that_never_reads_stops_nobody(served: Served) -> None:
    with served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.sendall(STATUS)
        assert b"Status OK" in served.request(STATUS)


def test_a_caller_that_was_killed_leaves_the_agent_running(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_descriptor: int, _data: bytes) -> int:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", gone)
        served.kernel.send(header(fuse.OPEN))
        assert b"Status OK" in served.request(STATUS)
    served.kernel.send(header(fuse.OPEN, unique=9))
    assert struct.unpack_from("<IiQ", served.kernel.recv(100))[2] == 9


def test_the_setup_travels_with_its_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    setup = Setup(True, PATHS, (8006, 8080), "x" * 40_000, "y" * 40_000)
    with socket.create_server(("127.0.0.1", 0)) as one:
        socket.send_fds(ours, [setup.pack()], [one.fileno()])
        found, (listener,) = agent.receive_setup(theirs)
        with listener:
            assert listener.getsockname() == one.getsockname()
    assert found == setup
