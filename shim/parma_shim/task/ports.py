# SPDX-License-Identifier: Apache-2.0
"""What the task service needs of the rest of the shim, and nothing else of it.

Implemented by :mod:`parma_shim.group` and :mod:`parma_shim.guest`, and by fakes in the tests. Times named
``deadline`` are values of ``time.monotonic()``. Calls to the guest raise ``ParmaError``: ``Denied`` when the policy
says no, ``DeadlineExceeded`` and ``Unavailable`` when the guest does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import Message

from parma_shim.api import types_pb2
from parma_shim.task.hooks import Hook
from parma_wire import guest_pb2


class ContainerSpec(NamedTuple):
    """One container to be created."""

    container_id: str
    """containerd's."""

    guest_id: str
    """64 hexadecimal digits: the container's id in the guest."""

    bundle: Path
    oci: Mapping[str, Any]
    """``config.json``, as parsed. Its annotations name the policy."""

    terminal: bool
    stdin: bool
    rootfs: tuple[types_pb2.Mount, ...] = ()
    """The mounts that containerd would have the root file system made of."""


class GuestProcess(Protocol):
    """An entry of the guest's list of processes."""

    @property
    def pid(self) -> int: ...
    @property
    def exec_id(self) -> str: ...
    @property
    def init(self) -> bool: ...


class Guest(Protocol):
    """The enforcer's control connection. ``exec_id`` is empty for a container's init process."""

    def answers(self, within: float) -> bool:
        """Whether it answers anybody in so many seconds."""

    def start_container(self, container_id: str, *, deadline: float | None = None) -> None: ...

    def evidence(self, nonce: bytes, *, deadline: float | None = None) -> bytes:
        """A report (1184 bytes) that answers 64 bytes; empty where there is no secure processor."""

    def stop_sandbox(self, *, deadline: float | None = None) -> None:
        """Ends the process that keeps a pod's namespaces."""

    def exec_process(
        self, container_id: str, exec_id: str, process: guest_pb2.Process, *, deadline: float | None = None
    ) -> int: ...

    def signal_process(
        self,
        container_id: str,
        exec_id: str,
        signal: int,
        *,
        all_processes: bool = False,
        deadline: float | None = None,
    ) -> None: ...

    def wait_process(self, container_id: str, exec_id: str) -> tuple[int, bool]:
        """Exit status and whether memory ran out. The one call that blocks for as long as the process lives."""

    def resize_pty(
        self, container_id: str, exec_id: str, width: int, height: int, *, deadline: float | None = None
    ) -> None: ...

    def delete_process(self, container_id: str, exec_id: str, *, deadline: float | None = None) -> None: ...

    def list_processes(self, container_id: str, *, deadline: float | None = None) -> Sequence[GuestProcess]: ...

    def stats(self, container_id: str, *, deadline: float | None = None) -> guest_pb2.StatsResponse: ...

    def pause(self, container_id: str, *, deadline: float | None = None) -> None: ...

    def resume(self, container_id: str, *, deadline: float | None = None) -> None: ...

    def update_resources(
        self, container_id: str, resources: guest_pb2.Resources, *, deadline: float | None = None
    ) -> None: ...


class Stream(Protocol):
    """One stream of a :class:`StreamConnection`."""

    def send(self, message: Message, timeout: float | None = None) -> None: ...

    def recv(self, timeout: float | None = None) -> Any:
        """The next message, ``None`` at the end; raises ``ttrpc.TtrpcError`` (DEADLINE_EXCEEDED: nothing yet)."""

    def close(self) -> None: ...


class StreamConnection(Protocol):
    """What is needed of ``ttrpc.Client`` for one process's streams."""

    def stream(self, service: str, method: str, response_class: type[Message], /) -> Stream: ...

    def close(self) -> None: ...


class Group(Protocol):
    """The virtual machine and everything in it."""

    @property
    def guest(self) -> Guest: ...

    @property
    def vm_pid(self) -> int: ...

    @property
    def status(self) -> dict[str, Any]:
        """A summary of the attested-policy status; empty before there is one."""

    @property
    def status_document(self) -> str:
        """The attested-policy status with its evidence, JSON; empty before there is one."""

    def create_container(
        self, spec: ContainerSpec, *, deadline: float | None, on_running: Callable[[], None] = lambda: None
    ) -> None:
        """Boots the virtual machine if this is the first one. Undoes everything when it fails.

        Args:
            on_running: called once it runs, before any file of the host is read and the container created.
        """

    def delete_container(self, container_id: str) -> None:
        """Frees what a stopped container holds, in the guest and on the host."""

    def require_attested(self, *, deadline: float | None) -> None:
        """Returns when the machine's evidence has verified, if the configuration wants that. Raises Unverified."""

    def open_stream_connection(self) -> StreamConnection: ...

    def on_vm_exit(self, callback: Callable[[int | None], None]) -> None:
        """Calls back once when the virtual machine has ended, for whatever reason, with its exit status."""

    def run_hooks(
        self, hooks: Sequence[Hook], state: Mapping[str, Any], network_namespace: str, *, deadline: float
    ) -> None:
        """Runs programs of the host, each told the state. Raises ParmaError for the first that fails."""

    def refresh_status(self) -> None:
        """Fetches and verifies evidence anew, in the background: the group has changed."""

    def kill(self) -> None:
        """Ends the virtual machine at once. Does not wait for anything in it."""

    def shutdown(self) -> None:
        """Ends the virtual machine and removes all that belongs to it. Idempotent."""
