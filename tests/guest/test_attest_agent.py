# SPDX-License-Identifier: Apache-2.0
"""The agent, its confinement, and the enforcer's side of the channel, over real sockets."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import paths
from parma_guest.attest import agent, channel, confine, cuse, fuse, service
from parma_guest.attest.agent import Agent, Enforcer
from parma_guest.attest.channel import KeyQuestion, ReportQuestion, Setup
from parma_guest.attest.cuse import Node
from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.keys import container_key
from parma_guest.attest.service import Access, Answerer, Attestation, listen_in
from parma_guest.reaper import Child
from parma_policy.attestation import NAMES
from parma_wire.errors import Malformed, Unavailable
from tests.descriptors import descriptors
from tests.guest.fakes import CONTAINER
from tests.guest.test_cuse import header
from tests.shim.support import eventually

REPORT = bytes(range(148)) * 8
KEY = b"k" * 32
IDENTITY = b"i" * 32
HOST_DATA = b"h" * 32
DATA = bytes(range(64))
HASHED = b"d" * 32 + bytes(32)
PATHS = tuple(name for name in NAMES if name.startswith(("/attest", "/key", "/aa")))


class FakeTee:
    """Counts what it is asked for."""

    def __init__(self, name: str = "snp") -> None:
        self.name = name
        self.reports: list[tuple[bytes, int]] = []

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        self.reports.append((report_data, vmpl))
        return b"" if self.name == "none" else REPORT

    def host_data(self) -> bytes | None:
        return HOST_DATA

    def derived_key(self) -> bytes:
        if self.name == "none":
            raise Unavailable("there is no secure processor to derive keys")
        return KEY


def answerer(*reachable: str, tee: FakeTee | None = None) -> Answerer:
    return Answerer(tee or FakeTee(), Access(frozenset(reachable), IDENTITY), HOST_DATA)


# The enforcer's answers


def test_an_agent_gets_what_its_container_may_have() -> None:
    assert answerer("/dev/sev-guest").answer(ReportQuestion(DATA, 2)) == b"\0" + REPORT
    assert answerer("/attest/raw").answer(ReportQuestion(HASHED, 0)) == b"\0" + REPORT
    key = container_key(KEY, HOST_DATA, IDENTITY, b"c")
    assert answerer("/key/derive").answer(KeyQuestion(b"c")) == b"\0" + key


@pytest.mark.parametrize("name", ["/key/derive", "/key/release", "/aa/token", "UVM_SECURITY_CONTEXT_DIR"])
def test_reports_need_something_that_gives_reports(name: str) -> None:
    tee = FakeTee()
    assert answerer(name, tee=tee).answer(ReportQuestion(HASHED, 0))[:1] == b"\1"
    assert tee.reports == []


@pytest.mark.parametrize("name", ["/attest/raw", "/attest/combined"])
def test_an_agent_that_was_taken_over_still_cannot_choose_all_of_report_data(name: str) -> None:
    tee = FakeTee()
    target = answerer(name, tee=tee)
    assert b"REPORT_DATA" in target.answer(ReportQuestion(DATA, 0))
    assert b"REPORT_DATA" in target.answer(ReportQuestion(bytes(63) + b"x", 0))
    assert tee.reports == []


def test_keys_need_to_be_allowed() -> None:
    others = [name for name in NAMES if name != "/key/derive"]
    assert answerer(*others).answer(KeyQuestion(b""))[:1] == b"\1"


def test_a_vm_without_a_processor_says_so() -> None:
    target = answerer(*NAMES, tee=FakeTee("none"))
    assert b"no secure processor" in target.answer(ReportQuestion(DATA, 0))
    assert b"no secure processor" in target.answer(KeyQuestion(b""))


def test_questions_beyond_the_burst_have_to_wait() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    target = Answerer(FakeTee(), Access(frozenset(NAMES), IDENTITY), HOST_DATA, clock=lambda: now[0], sleep=sleep)
    for _ in range(service.BURST + 40):
        target._pace()
    assert now[0] == pytest.approx(40 / service.QUESTIONS_PER_SECOND)
    now[0] += 1000
    slept.clear()
    for _ in range(service.BURST):
        target._pace()
    assert slept == []


@given(st.binary(max_size=80))
def test_other_questions_are_malformed(message: bytes) -> None:
    try:
        question = channel.parse_question(message)
    except Malformed:
        return
    assert question.pack() == message


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("message", [b"X", b"R", b"K" + bytes(65), b"R\4" + DATA, b"R\0" + DATA + b"more" * 100])
def test_an_agent_that_asks_nonsense_is_heard_no_more(
    pair: tuple[socket.socket, socket.socket], message: bytes
) -> None:
    ours, theirs = pair
    thread = threading.Thread(target=answerer(*NAMES).serve, args=(ours,))
    thread.start()
    theirs.send(message)
    assert theirs.recv(100) == b""
    thread.join(10)
    assert not thread.is_alive()


# The loop


class Served:
    """An agent in a thread, with a device and an HTTP endpoint, answered by the enforcer's side."""

    def __init__(self, *reachable: str, clock: Callable[[], float] | None = None) -> None:
        self.tee = FakeTee()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(20)
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
        return socket.create_connection(self.address, timeout=20)

    def request(self, data: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def close(self) -> None:
        self._enforcer_end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
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
    late.settimeout(20)
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


# Confinement

CONFINED = """
import errno, os, socket, sys
from parma_guest.attest import confine
inherited = socket.socket()
confine.confine(sys.argv[1])
def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "worked"
os.write(1, (" ".join([
    tried(lambda: os.open("/", os.O_RDONLY)),
    tried(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    tried(lambda: socket.socket(socket.AF_INET)),
    tried(lambda: socket.socket(40)),
    tried(lambda: inherited.connect(("127.0.0.1", 9))),
    tried(lambda: os.execv("/bin/true", ["true"])),
    tried(lambda: os.kill(os.getppid(), 0)),
    tried(lambda: os.setuid(0)),
]) + "\\n").encode())
os.read(0, 1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights takes having them")
def test_a_confined_process_opens_connects_executes_and_signals_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        input=b"x",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.split() == [b"EPERM"] * 8
    assert done.returncode == 0


def run_filter(program: bytes, number: int, arch: int = 0xC000003E) -> int:
    """The filter's verdict on a system call, by a model of classic BPF."""
    data = struct.pack("<II", number & 0xFFFFFFFF, arch) + bytes(56)
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x35:
            at += yes if accumulator >= value else no
        else:
            assert code == 0x06
            return int(value)


def test_the_filter_allows_its_list_and_nothing_else() -> None:
    program = confine.filter_program()
    allowed = {number for number in range(1000) if run_filter(program, number) == 0x7FFF0000}
    assert allowed == set(confine._SYSTEM_CALLS)
    assert run_filter(program, 257) == 0x00050001  # openat: EPERM
    assert run_filter(program, 0x40000000) == 0x00050001  # x32's read
    assert run_filter(program, 0, arch=0x40000003) == 0x80000000  # i386: killed


# Sessions


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
