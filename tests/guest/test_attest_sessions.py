# SPDX-License-Identifier: Apache-2.0
"""What a container reaches of attestation, from before its creation to its end: all faked but the sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parma_guest import paths
from parma_guest.attest import agent, cuse, service
from parma_guest.attest.channel import ReportQuestion, Setup
from parma_guest.attest.cuse import Node
from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.service import Access, Attestation, listen_in
from parma_guest.reaper import Child
from parma_wire.errors import Unavailable
from tests.descriptors import descriptors
from tests.guest.attest_fakes import DATA, HOST_DATA, IDENTITY, REPORT, FakeTee
from tests.guest.fakes import CONTAINER
from tests.shim.support import eventually


class FakeNetwork:
    """Stays where it is."""

    def __init__(self) -> None:
        self.entered = 0
        self.refuse = False

    def enter_network(self, namespace: int) -> None:
        assert os.fstat(namespace)
        if self.refuse:
            raise OSError(1, "Operation not permitted")
        self.entered += 1

    def make_directory(self, path: str, mode: int) -> None:
        del path, mode


class FakeSpawn:
    """Starts a program that stays as long as its channel is open, in place of the agent."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.channels: list[socket.socket] = []
        self.devices: list[int] = []

    def __call__(self, arguments: Sequence[str], stdio: tuple[int, int, int]) -> Child:
        self.commands.append(arguments)
        self.channels.append(socket.socket(fileno=os.dup(stdio[0])))
        self.devices.append(os.dup(stdio[1]))
        return Child(1 << 22)  # no process has this number


class Sessions:
    """`Attestation` with everything around it faked but the sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, tee: str = "snp") -> None:
        self.spawn = FakeSpawn()
        self.network = FakeNetwork()
        self.nodes: list[str] = []
        self.root = directory
        (directory / "device").write_bytes(b"")
        monkeypatch.setattr(paths, "rootfs", lambda _container: str(directory))
        monkeypatch.setattr(cuse, "register", self._register)
        self.attestation = Attestation(FakeTee(tee), self.spawn, self.network)

    def _register(self, name: str) -> Node:
        self.nodes.append(name)
        return Node(os.open(self.root / "device", os.O_RDWR), 244, len(self.nodes))

    def prepare(self, *reachable: str) -> service.Session:
        return self.attestation.prepare(CONTAINER, Access(frozenset(reachable), IDENTITY), b"policy", HOST_DATA)

    def close(self) -> None:
        for sock in self.spawn.channels:
            sock.close()
        for descriptor in self.spawn.devices:
            os.close(descriptor)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sessions]:
    made = Sessions(monkeypatch, tmp_path)
    yield made
    made.close()


def test_a_container_that_reaches_nothing_costs_nothing(sessions: Sessions) -> None:
    session = sessions.prepare()
    session.serve(os.getpid())
    session.close()
    assert (session.environment, session.device) == ((), None)
    assert sessions.spawn.commands == sessions.nodes == []
    assert [path.name for path in sessions.root.iterdir()] == ["device"]


def test_the_directory_alone_needs_no_agent(sessions: Sessions) -> None:
    session = sessions.prepare("UVM_SECURITY_CONTEXT_DIR")
    session.serve(os.getpid())
    assert session.environment[0].startswith("UVM_SECURITY_CONTEXT_DIR=/security-context-")
    assert sessions.spawn.commands == []


def test_a_device_is_served_from_the_start_to_the_end(sessions: Sessions) -> None:
    session = sessions.prepare("/dev/sev-guest")
    assert session.device == ("/dev/sev-guest", 244, 1)
    session.serve(os.getpid())
    assert sessions.network.entered == 0
    ((*_, command),) = sessions.spawn.commands
    assert "parma_guest.attest.agent" in command
    (theirs,) = sessions.spawn.channels
    setup, listeners = agent.receive_setup(theirs)
    assert setup == Setup(True, ("/dev/sev-guest",), (), "", "")
    assert listeners == []
    theirs.send(ReportQuestion(DATA, 1).pack())
    assert theirs.recv(4096) == b"\0" + REPORT
    session.close()
    session.close()
    assert theirs.recv(10) == b""


@pytest.mark.parametrize("when", ["first", "last"])
def test_an_agent_that_is_killed_is_forgotten_and_the_next_container_has_its_own(sessions: Sessions, when: str) -> None:
    before = descriptors()
    session = sessions.prepare("/dev/sev-guest")
    session.serve(os.getpid())
    theirs = sessions.spawn.channels.pop()
    if when == "last":
        agent.receive_setup(theirs)
        theirs.send(ReportQuestion(DATA, 1).pack())
        assert theirs.recv(4096) == b"\0" + REPORT
    theirs.close()
    os.close(sessions.spawn.devices.pop())
    session.close()
    eventually(lambda: descriptors() <= before)
    following = sessions.prepare("/dev/sev-guest")
    following.serve(os.getpid())
    (line,) = sessions.spawn.channels
    agent.receive_setup(line)
    line.send(ReportQuestion(DATA, 1).pack())
    assert line.recv(4096) == b"\0" + REPORT
    following.close()


def test_what_was_handed_in_reaches_the_next_container(sessions: Sessions) -> None:
    sessions.attestation.put_endorsements(Endorsements("cert", "cose"))
    session = sessions.prepare("/dev/sev-guest")
    session.serve(os.getpid())
    setup, _ = agent.receive_setup(sessions.spawn.channels[0])
    assert (setup.host_amd_cert, setup.reference_info) == ("cert", "cose")
    session.close()


def test_each_container_has_a_device_of_its_own(sessions: Sessions) -> None:
    first, second = sessions.prepare("/dev/sev-guest"), sessions.prepare("/dev/sev-guest")
    assert len(set(sessions.nodes)) == 2
    assert first.device != second.device
    first.close()
    second.close()


def test_without_a_secure_processor_there_is_no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sessions = Sessions(monkeypatch, tmp_path, tee="none")
    session = sessions.prepare("/dev/sev-guest", "UVM_SECURITY_CONTEXT_DIR")
    assert session.device is None
    assert session.environment
    session.serve(os.getpid())
    assert sessions.spawn.commands == sessions.nodes == []


def test_endpoints_listen_in_the_containers_network_on_loopback_only(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_listener", lambda _port: socket.create_server(("127.0.0.1", 0)))
    session = sessions.prepare("/attest/raw", "/aa/evidence")
    session.serve(os.getpid())
    assert sessions.network.entered == 1
    setup, listeners = agent.receive_setup(sessions.spawn.channels[0])
    assert setup.ports == (8006, 8080)
    assert {listener.getsockname()[0] for listener in listeners} == {"127.0.0.1"}
    for listener in listeners:
        listener.close()
    session.close()


def test_a_network_that_cannot_be_entered_or_a_taken_port_is_an_error(sessions: Sessions) -> None:
    sessions.network.refuse = True
    session = sessions.prepare("/attest/raw")
    with pytest.raises(Unavailable):
        session.serve(os.getpid())
    assert sessions.spawn.commands == []
    session.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable):
            listen_in(FakeNetwork(), os.getpid(), (port,))
    with pytest.raises(Unavailable):
        listen_in(FakeNetwork(), 1 << 22, (port,))
