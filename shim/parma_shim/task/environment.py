# SPDX-License-Identifier: Apache-2.0
"""What the parts of the task service share: the tasks, the group, and ways out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import Message

from parma_shim.observe.registry import Registry
from parma_shim.task.ports import Group
from parma_shim.task.process import Process, Tasks
from parma_wire.errors import FailedPrecondition


class Log(Protocol):
    """Calling it logs at level info."""

    def __call__(self, message: str, **fields: object) -> None: ...
    def debug(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...
    def error(self, message: str, **fields: object) -> None: ...


class Environment:
    """One per shim."""

    def __init__(
        self,
        *,
        namespace: str,
        make_group: Callable[[], Group],
        publish: Callable[[str, Message], None],
        log: Log,
        registry: Registry | None = None,
        on_created: Callable[[int], None] = lambda _pid: None,
        on_exited: Callable[[str, int, int, int], None] = lambda _bundle, _pid, _status, _exited_at: None,
        on_deleted: Callable[[str, int], None] = lambda _bundle, _pid: None,
    ) -> None:
        """
        Args:
            make_group: called once, for the first container.
            publish: queues an event; called in the order in which things happened, and never blocks.
            registry: counts streams.
            on_created: told the process id that containerd is told.
            on_exited: told the bundle, process id, exit status and time (nanoseconds since 1970) of a container that
                has ended, as soon as that is known.
            on_deleted: told the bundle and process id of a container that is gone, before Delete is answered.
        """
        self.namespace: Final = namespace
        self.tasks: Final = Tasks()
        self.publish: Final = publish
        self.log: Final = log
        self.registry: Final = registry or Registry()
        self.on_created: Final = on_created
        self.on_exited: Final = on_exited
        self.on_deleted: Final = on_deleted
        self.closing = False
        """Nothing new is begun; the process is about to end."""
        self.machine_gone: Final = threading.Event()
        """Set while there is no virtual machine that could be running."""
        self.is_sandbox = False
        """containerd's sandbox API made a pod: it stays when it has no tasks. Under the tasks' lock."""
        self._make_group = make_group
        self._group: Group | None = None
        self._group_lock = threading.Lock()

    def group_for_creation(self, on_vm_exit: Callable[[], None]) -> Group:
        """The group, made if this is the first container.

        Raises:
            FailedPrecondition: the shim is ending.
        """
        with self._group_lock:
            if self.closing:
                raise FailedPrecondition("the shim is shutting down")
            if self._group is None:
                self._group = self._make_group()
                self._group.on_vm_exit(lambda _status: self._machine_ended(on_vm_exit))
            self.machine_gone.clear()
            return self._group

    def _machine_ended(self, then: Callable[[], None]) -> None:
        self.machine_gone.set()
        then()

    @property
    def group(self) -> Group:
        """The group.

        Raises:
            FailedPrecondition: there is none.
        """
        if self._group is None:
            raise FailedPrecondition("there is no virtual machine")
        return self._group

    def record(self, what: str, process: Process, **fields: object) -> None:
        """A line of a process's life in the log. Execs are for debugging: probes make one every few seconds."""
        if process.exec_id:
            self.log.debug(f"exec {what}", container=process.container.id, exec=process.exec_id, **fields)
        else:
            self.log(f"container {what}", container=process.container.id, **fields)

    def kill_machine(self, why: str) -> None:
        """Ends the virtual machine, if there is one, and says why in the log. Returns at once."""
        if self._group is not None:
            self.log.warning(f"ending the virtual machine: {why}")
            self._group.kill()

    def end_group(self) -> None:
        """Ends the group for good. Waits until nothing of it is left.

        Raises:
            ParmaError: something is left.
        """
        with self._group_lock:
            self.closing = True
            group = self._group
        if group is not None:
            group.kill()
            group.shutdown()
