# SPDX-License-Identifier: Apache-2.0
"""The enforcer's side: what a container may reach is made for it, and its agent's questions are answered.

Nothing of this is imported or started for a container that the policy lets reach nothing.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from parma_guest import paths
from parma_guest.reaper import Child
from parma_guest.tee import TeeProvider
from parma_guest.undo import Undo
from parma_guest.values import ContainerId
from parma_policy.attestation import DEVICE, FREE_REPORTS, KEY_DERIVE, REPORTS, SECURITY_CONTEXT
from parma_wire.errors import Denied, Malformed, ParmaError, Unavailable

if TYPE_CHECKING:
    from parma_guest.attest.endorsements import Endorsements

AGENT: Final = (
    paths.PYTHON,
    "-ISB",
    "-c",
    f"import sys; sys.path.insert(0, {paths.LIBRARY!r}); from parma_guest.attest.agent import main; main()",
)

QUESTIONS_PER_SECOND: Final = 20.0
BURST: Final = 20
"""Questions of one container: more have to wait. The secure processor is slow, and everybody's."""

FREE_SIZE: Final = 32
"""Bytes of REPORT_DATA that a sidecar's endpoint fills with a hash; the others are zero."""

_BACKLOG: Final = 16

Spawn = Callable[[Sequence[str], tuple[int, int, int]], Child]


class Network(Protocol):
    """What is needed of `parma_guest.syscalls.Kernel`."""

    def enter_network(self, namespace: int) -> None:
        """Moves the calling thread to a network namespace."""

    def make_directory(self, path: str, mode: int) -> None:
        """With its parents."""


class Access(NamedTuple):
    """What the policy decided for a container: names of `parma_policy.attestation`, and what its keys are bound to."""

    reachable: frozenset[str] = frozenset()
    identity: bytes = b""


class DeviceNode(NamedTuple):
    """A character device that a container gets."""

    path: str
    major: int
    minor: int


class Session:
    """One container's. Made by `Attestation.prepare`; `close` ends all of it but the files in the container's root."""

    def __init__(self) -> None:
        self.environment: tuple[str, ...] = ()
        self.device: DeviceNode | None = None
        self.listens = False
        """Whether something will listen on 127.0.0.1 of the container's network namespace."""
        self._serve: Callable[[int], None] | None = None
        self._closers: list[Callable[[], None]] = []

    def serve(self, pid: int) -> None:
        """Once the container is created, and nothing of it runs yet: ``pid`` is in its network namespace.

        Raises `ParmaError` and OSError.
        """
        if self._serve is not None:
            self._serve(pid)

    def on_close(self, close: Callable[[], None]) -> None:
        """Registers what `close` does; last first."""
        self._closers.append(close)

    def on_serve(self, serve: Callable[[int], None]) -> None:
        """Registers what `serve` does."""
        self._serve = serve

    def close(self) -> None:
        """Idempotent."""
        while self._closers:
            with suppress(OSError):
                self._closers.pop()()


def merged(requested: tuple[str, ...], ours: tuple[str, ...]) -> tuple[str, ...]:
    """A process's environment with our variables, which replace any of the same name that the host asked for."""
    names = {variable.partition("=")[0] for variable in ours}
    return (*(variable for variable in requested if variable.partition("=")[0] not in names), *ours)


class _Plan(NamedTuple):
    """What an agent will serve."""

    access: Access
    host_data: bytes
    device: io.FileIO | None
    ports: tuple[int, ...]
    endorsements: Endorsements


class Attestation:
    """What all sessions have in common. Called under the enforcer's lock."""

    def __init__(self, tee: TeeProvider, spawn: Spawn, kernel: Network) -> None:
        self._tee = tee
        self._spawn = spawn
        self._kernel = kernel
        self._numbers = itertools.count()
        self._endorsements: Endorsements | None = None

    def put_endorsements(self, endorsements: Endorsements) -> None:
        """For the containers that are created from now on."""
        self._endorsements = endorsements

    def prepare(self, container: ContainerId, access: Access, policy: bytes, host_data: bytes) -> Session:
        """What must be there before the container is created. ``host_data`` is the policy's SHA-256.

        Raises `Unavailable`; nothing is left then but a directory in the container's own root.
        """
        session = Session()
        if not access.reachable:
            return session
        from parma_guest.attest import endpoints, security_context
        from parma_guest.attest.endorsements import Endorsements

        self._endorsements = self._endorsements or Endorsements()

        if SECURITY_CONTEXT in access.reachable:
            session.environment = security_context.write(
                paths.rootfs(container), policy, self._endorsements, tee=self._tee.name
            )
        ports = endpoints.ports(access.reachable)
        device = self._make_device(session) if DEVICE in access.reachable and self._tee.name != "none" else None
        session.listens = bool(ports)
        if ports or device is not None:
            plan = _Plan(access, host_data, device, ports, self._endorsements)
            session.on_serve(lambda pid: self._start(session, plan, pid))
        return session

    def _make_device(self, session: Session) -> io.FileIO:
        from parma_guest.attest import cuse

        node = cuse.register(f"parma-sev-guest-{next(self._numbers)}")
        device = io.FileIO(node.descriptor, "r+")
        session.on_close(device.close)
        session.device = DeviceNode(DEVICE, node.major, node.minor)
        return device

    def _start(self, session: Session, plan: _Plan, pid: int) -> None:
        from parma_guest.attest.channel import Setup

        ports, device = plan.ports, plan.device
        listeners = listen_in(self._kernel, pid, ports) if ports else []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with Undo() as undo:
                undo.add(ours.close)
                setup = Setup(device is not None, tuple(sorted(plan.access.reachable)), ports, *plan.endorsements)
                socket.send_fds(ours, [setup.pack()], [listener.fileno() for listener in listeners])
                self._kernel.make_directory(paths.NOTHING, 0o555)
                child = self._run(theirs.fileno(), device)
        finally:
            # From here on these live and die with the agent.
            for mine in (theirs, *listeners):
                mine.close()
            if device is not None:
                device.close()
        session.on_close(_killer(child))
        session.on_close(lambda: ours.shutdown(socket.SHUT_RDWR))
        answerer = Answerer(self._tee, plan.access, plan.host_data)
        threading.Thread(target=answerer.serve, args=(ours,), name="attestation", daemon=True).start()

    def _run(self, channel: int, device: io.FileIO | None) -> Child:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return self._spawn(AGENT, (channel, device.fileno() if device else null, null))
        finally:
            os.close(null)


class Answerer:
    """Answers the questions of one agent, on a thread of its own and outside of the enforcer's lock."""

    def __init__(
        self,
        tee: TeeProvider,
        access: Access,
        host_data: bytes,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tee = tee
        self._access = access
        self._host_data = host_data
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(BURST)
        self._filled = clock()

    def serve(self, connection: socket.socket) -> None:
        """Until either side closes, or the agent says something that no agent says."""
        from parma_guest.attest import channel

        with connection:
            while True:
                try:
                    # One byte more than a question has, so that a longer one is seen to be longer.
                    message = connection.recv(channel.MAX_QUESTION + 1)
                    if not message:
                        return
                    question = channel.parse_question(message)
                    self._pace()
                    connection.sendall(self.answer(question))
                except (OSError, Malformed):
                    return

    def answer(self, question: object) -> bytes:
        """The answer to one question, within what the policy allows."""
        from parma_guest.attest import channel

        try:
            if isinstance(question, channel.ReportQuestion):
                return channel.good(self._report(question.report_data, question.vmpl))
            if isinstance(question, channel.KeyQuestion):
                return channel.good(self._key(question.context))
        except ParmaError as error:
            return channel.bad(error.message)
        return channel.bad("there is no such question")

    def _report(self, report_data: bytes, vmpl: int) -> bytes:
        if not self._access.reachable & REPORTS:
            raise Denied("the execution policy does not let this container have reports")
        if not self._access.reachable & FREE_REPORTS and any(report_data[FREE_SIZE:]):
            raise Denied("the execution policy does not let this container choose all of REPORT_DATA")
        report = self._tee.report(report_data, vmpl)
        if not report:
            raise Unavailable("this VM has no secure processor")
        return report

    def _key(self, context: bytes) -> bytes:
        from parma_guest.attest import keys

        if KEY_DERIVE not in self._access.reachable:
            raise Denied("the execution policy does not let this container have derived keys")
        return keys.container_key(self._tee.derived_key(), self._host_data, self._access.identity, context)

    def _pace(self) -> None:
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._filled) * QUESTIONS_PER_SECOND)
        self._filled = now
        if self._tokens < 1.0:
            self._sleep((1.0 - self._tokens) / QUESTIONS_PER_SECOND)
        self._tokens -= 1.0


def listen_in(kernel: Network, pid: int, ports: Sequence[int]) -> list[socket.socket]:
    """Sockets that listen on 127.0.0.1 of the network namespace that the process ``pid`` is in.

    Only whoever is in that namespace can reach them; 127.0.0.1 is never routed. Raises `Unavailable`.
    """
    made: list[socket.socket] = []
    problem: list[OSError] = []

    def work() -> None:  # on a thread that ends: it never comes back from there
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                kernel.enter_network(namespace)
            finally:
                os.close(namespace)
            for port in ports:
                made.append(_listener(port))
        except OSError as error:
            problem.append(error)

    thread = threading.Thread(target=work, name="listen")
    thread.start()
    thread.join()
    if problem:
        for listener in made:
            listener.close()
        raise Unavailable("nobody can listen in the container's network") from problem[0]
    return made


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _killer(child: Child) -> Callable[[], None]:
    """Ends a process that does not end by itself; never another one that got its number."""
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError:  # it has ended
        return lambda: None
    pidfd = io.FileIO(descriptor, "r")

    def kill() -> None:
        with pidfd, suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)

    return kill
