# SPDX-License-Identifier: Apache-2.0
"""Ports of a pod on the host: the shim's end and the guest's, with ttrpc between them and a real kernel around."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim import forwarding
from parma_shim.forwarding import Forwarder
from parma_shim.helpers import port_catcher
from parma_shim.helpers.network import bring_up
from parma_shim.task.ports import StreamConnection
from parma_shim.vm.network import Ports
from parma_wire.errors import Unavailable
from tests.descriptors import descriptors
from tests.guest.test_network import away, needs_root
from tests.guest.test_wire import Served, set_policy

SECONDS = 60.0


class Chain:
    """A host's listener, the shim's end, the guest's, and a container's listener. The port is the former's own."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.container = socket.create_server(("127.0.0.1", 0))
        self.container.settimeout(SECONDS)
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        served.rig.network.listeners[self.address[1]] = self.container.getsockname()
        self.log: list[str] = []
        self.logged = threading.Event()
        self.link = os.eventfd(0)
        self.forwarder = Forwarder(Ports(listener.detach(), self.link), served.connect, self._note)

    def _note(self, line: str) -> None:
        self.log.append(line)
        self.logged.set()

    def connect(self) -> socket.socket:
        """As containerd does."""
        return socket.create_connection(self.address, SECONDS)

    def both(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection."""
        client = self.connect()
        accepted, _ = self.container.accept()
        accepted.settimeout(SECONDS)
        return client, accepted

    def close(self) -> None:
        self.forwarder.close()
        self.container.close()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    served = Served(tmp_path)
    set_policy(served)
    chain = Chain(served)
    yield chain
    chain.close()
    served.close()


def everything(connection: socket.socket) -> bytes:
    data = bytearray()
    while piece := connection.recv(65536):
        data += piece
    return bytes(data)


def send_all(connection: socket.socket, data: bytes) -> None:
    """And nothing after it."""
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := connection.recv(65536)):
        data += piece
    return bytes(data)


def test_an_answer_comes_after_the_request_has_ended(chain: Chain) -> None:
    client, application = chain.both()
    with client, application:
        request, answer = os.urandom(300_000), os.urandom(300_000)
        sender = threading.Thread(target=send_all, args=(client, request))
        sender.start()
        assert everything(application) == request
        sender.join(SECONDS)
        answerer = threading.Thread(target=send_all, args=(application, answer))
        answerer.start()
        assert everything(client) == answer
        answerer.join(SECONDS)
    assert chain.log == []


def test_an_application_that_reads_nothing_until_it_has_said_all_holds_nothing_up(chain: Chain) -> None:
    client, application = chain.both()
    with client, application:
        sent = os.urandom(8_000_000)  # more than all buffers on the way
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        answerer = threading.Thread(target=application.sendall, args=(sent,))
        answerer.start()
        assert exactly(client, len(sent)) == sent
        answerer.join(SECONDS)
        assert exactly(application, len(sent)) == sent
        sender.join(SECONDS)


def test_a_reset_on_one_side_is_a_reset_on_the_other(chain: Chain) -> None:
    for near in (0, 1):
        ends = chain.both()
        ends[near].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        ends[near].close()
        with ends[1 - near] as other, pytest.raises(ConnectionResetError):
            other.recv(1)


def test_what_the_policy_denies_is_reset_and_the_log_says_why(chain: Chain) -> None:
    chain.served.rig.engine.deny.add("forward_port")
    with chain.connect() as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert chain.logged.wait(SECONDS)
    assert "forward_port denied: because" in chain.log[0]
    assert f"port {chain.address[1]}" in chain.log[0]


def test_the_end_takes_the_listener_and_its_link_away(chain: Chain) -> None:
    client, application = chain.both()
    chain.forwarder.close()
    chain.forwarder.close()
    with client, application:
        client.sendall(b"under way")  # what has been accepted goes on until the machine ends
        assert application.recv(100) == b"under way"
    deadline = threading.Event()
    while _listens(chain.address):
        assert not deadline.wait(0.01)


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, SECONDS).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass  # it went away at this moment
    return True


def test_without_descriptors_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = descriptors()
    listener, link = socket.create_server(("127.0.0.1", 0)), os.eventfd(0)
    monkeypatch.setattr(forwarding, "Stopper", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        Forwarder(Ports(listener.detach(), link), lambda: pytest.fail("nobody is connected"), print)
    assert descriptors() <= before


def test_no_guest_is_a_reset() -> None:
    def nobody() -> StreamConnection:
        raise Unavailable("the VM has ended")

    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    forwarder = Forwarder(Ports(listener.detach(), os.eventfd(0)), nobody, print)
    with socket.create_connection(address, SECONDS) as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    forwarder.close()


@needs_root
def test_a_namespaces_loopback_is_caught_whatever_the_port_and_nothing_else(tmp_path: Path) -> None:
    def work() -> None:
        refused = port(("127.0.0.1", 80))
        assert refused is None
        bring_up("lo")
        listener, link = port_catcher.catch()
        with socket.socket(fileno=listener) as caught:
            places = [("127.0.0.1", 80), ("127.1.2.3", 65535), ("::1", 1), ("::1", 8080)]
            assert [port(place, caught) for place in places] == [place[1] for place in places]
            with socket.create_server(("127.0.0.1", 5000)):  # whoever listens there all the same
                assert port(("127.0.0.1", 5000), caught) == 5000
            os.close(link)
            assert port(("127.0.0.1", 80)) is None

    away(work)


def port(address: tuple[str, int], caught: socket.socket | None = None) -> int | None:
    """The port that a connection to this address turns out to be for; None: it is refused."""
    try:
        with socket.create_connection(address, SECONDS):
            assert caught is not None
            accepted, _ = caught.accept()
            with accepted:
                return int(accepted.getsockname()[1])
    except OSError:
        return None
