# SPDX-License-Identifier: Apache-2.0
"""A created container, and what the container group needs of the world to keep one."""

from __future__ import annotations

import os
import signal as signals
import socket
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from parma_guest import users
from parma_guest.attest.service import Access, Session
from parma_guest.cgroups import Cgroup
from parma_guest.processes import Process
from parma_guest.runtime import Launched, StdioPlan
from parma_guest.values import ContainerId, ExecId, ProcessSpec, User
from parma_wire.errors import Denied, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from parma_guest.attest.endorsements import Endorsements
    from parma_guest.network_requests import Interface

_STATUS_KILLED: Final = 128 + signals.SIGKILL


class Runtime(Protocol):
    """What is needed of `parma_guest.runtime.Crun`."""

    def create(self, container: ContainerId, spec: dict[str, Any], plan: StdioPlan) -> Launched:
        """Created, not started."""

    def start(self, container: ContainerId) -> None:
        """Started."""

    def execute(self, container: ContainerId, process: dict[str, Any], plan: StdioPlan) -> Launched:
        """Running."""

    def update(self, container: ContainerId, resources: dict[str, Any]) -> None:
        """Limits changed."""

    def delete(self, container: ContainerId) -> None:
        """Nothing left."""


class Host(Protocol):
    """What the group needs of the guest's kernel besides."""

    def identity(self, container: ContainerId, user: User) -> users.Identity:
        """Names for the numbers."""

    def cgroup(self, container: ContainerId) -> Cgroup:
        """The container's cgroup."""

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` below ``root``; any symbolic link on the way is an error."""

    def prepare_bind(self, base: str, source: str) -> None:
        """Makes the source of a bind mount exist below ``base``; refuses anything that is not below it."""

    def pinned(self, base: str, source: str, place: str) -> AbstractContextManager[str]:
        """The path of exactly that source, which nobody can exchange while the context lasts."""


class Attestation(Protocol):
    """What is needed of `parma_guest.attest.service.Attestation`."""

    def put_endorsements(self, endorsements: Endorsements) -> None:
        """For containers that are created from now on."""

    def prepare(self, container: ContainerId, access: Access, policy: bytes, host_data: bytes) -> Session:
        """What must be there before the container is created."""


class Network(Protocol):
    """What is needed of `parma_guest.network.Network`."""

    @property
    def configured(self) -> bool:
        """Whether there is more than loopback."""

    def namespace(self) -> str:
        """The path of the containers' network namespace."""

    def configure(self, interfaces: tuple[Interface, ...]) -> None:
        """Network cards moved there and configured."""

    def connect(self, port: int) -> socket.socket:
        """A connection to somebody on its loopback."""


class Container:
    """A container that has been created and not yet deleted."""

    __slots__ = ("container", "execs", "init", "session", "started", "stdio_allowed", "used_exec_ids")

    def __init__(self, container: ContainerId, init: Process, stdio_allowed: bool, session: Session) -> None:
        self.container: Final = container
        self.init: Final = init
        self.stdio_allowed: Final = stdio_allowed
        self.session: Final = session
        """What of attestation it reaches."""
        self.started = False
        self.execs: dict[ExecId, Process] = {}
        self.used_exec_ids: set[ExecId] = set()

    def process(self, exec_id: ExecId) -> Process:
        """Init for the empty id. Raises `NotFound`."""
        found = self.init if exec_id.is_init else self.execs.get(exec_id)
        if found is None:
            raise NotFound("no such process")
        return found

    def require_running(self) -> None:
        """Raises `FailedPrecondition`."""
        if self.init.exited:
            raise FailedPrecondition("the container has stopped")
        if not self.started:
            raise FailedPrecondition("the container has not been started")

    def require_entered(self, process: Process) -> None:
        """Kills what was launched where init has ended and it has not: it is not where init was.

        crun enters a container by init's number, and had init ended meanwhile, another might have had it. When init
        ends, the kernel has ended everything in its namespace before anybody can see that. Raises `FailedPrecondition`.
        """
        if self.init.alive or not process.alive:  # in this order
            return
        with suppress(NotFound):
            process.signal(signals.SIGKILL)
        process.close()
        raise FailedPrecondition("the container has stopped meanwhile")


class Members:
    """The containers of the group, and which ids were ever used."""

    def __init__(self) -> None:
        self.containers: Final[dict[ContainerId, Container]] = {}
        self.used_ids: Final[set[ContainerId]] = set()
        self.sandbox: ContainerId | None = None
        self.has_endpoints = False
        """Something listens, or did, on the loopback of the group's network for one container only."""

    def add(self, container: Container) -> None:
        """Its id is taken for good."""
        self.containers[container.container] = container
        self.used_ids.add(container.container)

    def get(self, container: ContainerId) -> Container:
        """Raises `NotFound`."""
        found = self.containers.get(container)
        if found is None:
            raise NotFound("no such container")
        return found


def watched(host: Host, container: ContainerId, exec_id: ExecId, args: tuple[str, ...], launched: Launched) -> Process:
    """A process that was launched; when it exits, what the kernel's OOM killer had to do with it is known."""
    process = Process(container, exec_id, args, launched.child, launched.pidfd, launched.stdio)
    cgroup = host.cgroup(container)
    earlier = cgroup.oom_kills()  # of processes that are none of this one's

    def on_exit(status: int) -> bool:
        oom_killed = status == _STATUS_KILLED and cgroup.oom_kills() > earlier
        if exec_id.is_init:
            cgroup.kill()  # with a shared pid namespace the kernel would leave the others running
        return oom_killed

    process.watch(on_exit)
    return process


def stdio_plan(process: ProcessSpec, allowed: bool) -> StdioPlan:
    """What a process gets. Raises `Denied` for a terminal that would need what the policy does not allow."""
    if process.terminal and not allowed:
        raise Denied("a terminal needs access to stdio, which the policy does not allow")
    return StdioPlan(allowed, process.terminal, process.stdin, process.console_size)
