# SPDX-License-Identifier: Apache-2.0
"""Containers and processes as the shim remembers them. All access is under the lock of :class:`Tasks`."""

from __future__ import annotations

import threading
import time

from parma_shim.digest import hex_digest
from parma_shim.stdio.process import Paths, ProcessIO
from parma_shim.task import states
from parma_shim.task.hooks import Hooks
from parma_shim.task.states import Event, State
from parma_wire import guest_pb2
from parma_wire.errors import AlreadyExists, NotFound

KILLED = 137
"""128 + SIGKILL: what a process gets whose virtual machine has gone."""

START_FAILED = 255


def guest_container_id(namespace: str, container_id: str, earlier: int = 0) -> str:
    """The container's id in the guest: 64 hexadecimal digits, whatever containerd allows in names.

    The guest takes an id once in its life, containerd takes one again as soon as it is free: ``earlier``, the number of
    containers that the shim has had before, tells them apart.
    """
    return hex_digest(f"{namespace}/{container_id}" + (f"\0{earlier}" if earlier else ""))


class Process:
    """A container's first process (``exec_id`` empty) or an exec."""

    __slots__ = (
        "container",
        "exec_id",
        "exit_status",
        "exited_at",
        "guest_exec_id",
        "io",
        "known_end",
        "pid",
        "size",
        "spec",
        "state",
        "stdin_closed",
        "stdio",
    )

    def __init__(self, container: Container, exec_id: str, stdio: Paths, state: State) -> None:
        self.container = container
        self.exec_id = exec_id
        self.guest_exec_id = ""
        """The guest never lets an exec id be used twice; containerd does, once the first one is deleted."""
        self.stdio = stdio
        self.state = state
        self.pid = 0
        self.exit_status = 0
        self.exited_at = 0
        """Host clock, nanoseconds since 1970; 0 before the exit."""
        self.io: ProcessIO | None = None
        self.size: tuple[int, int] | None = None
        """Terminal size asked for before the start, to be set after it."""
        self.stdin_closed = False
        self.known_end: tuple[int, bool] | None = None
        """Exit status and whether memory ran out, as first heard of; reported a moment later."""
        self.spec: guest_pb2.Process | None = None
        """Of an exec, until it is started."""

    @property
    def id(self) -> str:
        """What events call it."""
        return self.exec_id or self.container.id

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"exec {self.exec_id} of container {self.container.id}" if self.exec_id else f"container {self.id}"

    def apply(self, event: Event) -> None:
        """Takes a step.

        Raises:
            FailedPrecondition: not possible in this state.
        """
        self.state = states.after(self.state, event, self.title)

    def end(self, event: Event, status: int) -> None:
        """The last step to STOPPED."""
        self.apply(event)
        self.exit_status = status
        self.exited_at = time.time_ns()


class Container:
    """A container: its first process and its execs."""

    __slots__ = (
        "bundle",
        "cancelled",
        "execs",
        "guest_id",
        "hooks",
        "hooks_ran",
        "id",
        "init",
        "is_pod",
        "killed_alone",
        "listing",
        "pids",
        "started_execs",
    )

    def __init__(self, container_id: str, guest_id: str, bundle: str, stdio: Paths) -> None:
        self.id = container_id
        self.guest_id = guest_id
        self.bundle = bundle
        self.init = Process(self, "", stdio, State.CREATING)
        self.execs: dict[str, Process] = {}
        self.hooks: Hooks | None = None
        self.hooks_ran = False
        """Those at its creation, or some of them."""
        self.started_execs = 0
        self.killed_alone = False
        """The client has sent SIGKILL while there was no other container: the virtual machine ends with it."""
        self.is_pod = False
        """A pod's pause container: in the guest it is a process of the guest image."""
        self.cancelled = False
        """Deleted by the client before Create had finished."""
        self.listing: threading.Event | None = None
        """Set when the guest has answered the ListProcesses that is under way."""
        self.pids: list[tuple[int, str]] = []
        """The guest's last answer to ListProcesses: process id, exec id."""

    def find(self, exec_id: str) -> Process:
        """The first process for an empty ``exec_id``, else that exec.

        Raises:
            NotFound
        """
        if not exec_id:
            return self.init
        try:
            return self.execs[exec_id]
        except KeyError:
            raise NotFound(f"exec {exec_id} of container {self.id} does not exist: not found") from None

    def next_guest_exec_id(self) -> str:
        """A name that this container has not used before."""
        self.started_execs += 1
        return f"exec-{self.started_execs}"


class Tasks:
    """All containers of the shim, and the one lock.

    The lock is held for looking at and changing what is in memory, never while the guest, a file or a process is
    waited for: State, Connect and Wait of one container must not depend on the health of anything else.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Notified after every change of a state."""
        self.begun = 0
        """How many containers were ever added."""
        self._containers: dict[str, Container] = {}

    def add(self, container: Container) -> None:
        """Reserves the id.

        Raises:
            AlreadyExists
        """
        if container.id in self._containers:
            raise AlreadyExists(f"container {container.id} exists already: already exists")
        self._containers[container.id] = container
        self.begun += 1

    def remove(self, container: Container) -> None:
        """Forgets a container; harmless when it is forgotten already."""
        if self._containers.get(container.id) is container:
            del self._containers[container.id]

    def find(self, container_id: str, exec_id: str = "") -> Process:
        """A process that has been created.

        Raises:
            NotFound: no such process, or the container is still being created.
        """
        container = self._containers.get(container_id)
        if container is None or container.init.state is State.CREATING:
            raise NotFound(f"container {container_id} does not exist: not found")
        return container.find(exec_id)

    def creating(self, container_id: str) -> Container | None:
        """The container, if it is still being created."""
        container = self._containers.get(container_id)
        return container if container is not None and container.init.state is State.CREATING else None

    def wait_until_ended(self, timeout: float) -> bool:
        """Waits until no container runs; takes the lock itself."""
        with self.changed:
            return self.changed.wait_for(
                lambda: all(container.init.state not in states.ALIVE for container in self.all()), timeout
            )

    def all(self) -> list[Container]:
        """Every container, in order of creation."""
        return list(self._containers.values())
