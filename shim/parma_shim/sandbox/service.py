# SPDX-License-Identifier: Apache-2.0
"""``containerd.runtime.sandbox.v1.Sandbox``: one method per RPC, for the one sandbox that the shim is there for.

::

    CreateSandbox     StartSandbox                     StopSandbox, or the VM's end
    ABSENT --> CREATED --> STARTING --> READY ----------------------> STOPPED --> (ShutdownSandbox: the shim ends)
                  |            |failed                                   ^
                  +------------+-----------------------------------------+

The pod's VM is booted by StartSandbox and holds what its containers share; they come as tasks. What has ended can be
stopped and shut down as often as anybody likes: containerd does both after each failure.

Lock contract: the lock of the tasks guards the state, so that whoever waits is woken by the same condition; nothing is
waited for under it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Final

from parma_shim.api import sandbox_pb2 as pb
from parma_shim.api import types_pb2
from parma_shim.sandbox.document import pod_document
from parma_shim.task import exits, metrics
from parma_shim.task.environment import Environment
from parma_shim.task.ports import ContainerSpec, Group
from parma_shim.task.process import KILLED, guest_container_id
from parma_shim.task.service import STATS_TIMEOUT
from parma_shim.task.states import ALIVE
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Malformed,
    NotFound,
    Unavailable,
    Unsupported,
)
from ttrpc import Context

ATTESTATION: Final = "parma.attestation"
"""The key in a status's ``info`` under which the attested-policy status stands, JSON."""

STOP: Final = 10.0
"""Seconds for the VM's process to go, when nobody says otherwise."""

_READY: Final = "SANDBOX_READY"
_NOT_READY: Final = "SANDBOX_NOTREADY"
_MAX_DOCUMENT: Final = 3 << 20
"""Bytes of a status with its evidence that fit into an answer."""


class State(Enum):
    """Where the sandbox is in its life."""

    ABSENT = "not created"
    CREATED = "created"
    STARTING = "being started"
    READY = "ready"
    STOPPED = "stopped"


class SandboxService:
    """Handlers for the ttrpc server; each runs in a thread of its own."""

    def __init__(self, env: Environment, *, sandbox_id: str, shutdown: Callable[[], None]) -> None:
        """``shutdown`` is called when ShutdownSandbox has been answered."""
        self._env = env
        self._sandbox_id = sandbox_id
        self._shutdown = shutdown
        self._state = State.ABSENT
        self._document: dict[str, Any] = {}
        self._bundle = ""
        self._pid = 0
        self._created_at = 0
        self._exited_at = 0
        self._exit_status = 0
        self._asked_to_stop = False

    def CreateSandbox(self, request: pb.CreateSandboxRequest, _context: Context) -> pb.CreateSandboxResponse:  # noqa: N802
        try:
            document = pod_document(request)
        except Unsupported as error:
            # containerd takes Unimplemented for a shim without this service.
            raise Malformed(error.message, expected=error.expected, hint=error.hint) from error
        if request.sandbox_id != self._sandbox_id:
            raise Malformed("this shim was started for another sandbox", expected=self._sandbox_id)
        with self._env.tasks.changed:
            if self._state is not State.ABSENT:
                raise AlreadyExists(f"sandbox {self._sandbox_id} exists already: already exists")
            if self._env.closing or self._env.tasks.all():
                raise FailedPrecondition("the shim has tasks already, or is shutting down")
            self._document, self._bundle = document, request.bundle_path
            self._state = State.CREATED
            self._env.is_sandbox = True
        return pb.CreateSandboxResponse()

    def StartSandbox(self, request: pb.StartSandboxRequest, context: Context) -> pb.StartSandboxResponse:  # noqa: N802
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
            if self._state is not State.CREATED:
                raise FailedPrecondition(f"the sandbox is {self._state.value}", expected="created")
            self._state = State.STARTING
        try:
            group = self._boot(context.deadline)
            self._started(group.vm_pid)
        except BaseException as error:
            self._end(KILLED)
            self._env.kill_machine(f"the sandbox cannot be started: {error}")
            raise
        return pb.StartSandboxResponse(pid=self._pid, created_at=exits.timestamp(self._created_at))

    def _boot(self, deadline: float | None) -> Group:
        group = self._env.group_for_creation(self._machine_ended)
        guest_id = guest_container_id(self._env.namespace, self._sandbox_id)
        spec = ContainerSpec(
            self._sandbox_id, guest_id, Path(self._bundle), self._document, terminal=False, stdin=False
        )
        group.create_container(spec, deadline=deadline)
        group.guest.start_container(guest_id, deadline=deadline)
        group.require_attested(deadline=deadline)
        return group

    def _started(self, pid: int) -> None:
        with self._env.tasks.changed:
            if self._state is not State.STARTING or not pid:
                raise Unavailable("the virtual machine ended, or was ended, while the sandbox was being started")
            self._pid, self._created_at = pid, time.time_ns()
            self._state = State.READY
            self._env.tasks.changed.notify_all()
        self._env.on_created(pid)

    def Platform(self, request: pb.PlatformRequest, _context: Context) -> pb.PlatformResponse:  # noqa: N802
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
        return pb.PlatformResponse(platform=types_pb2.Platform(os="linux", architecture="amd64"))

    def StopSandbox(self, request: pb.StopSandboxRequest, context: Context) -> pb.StopSandboxResponse:  # noqa: N802
        """Its containers were stopped before, each with its own grace period: what is left ends with the VM."""
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
        self._stop(time.monotonic() + (request.timeout_secs or STOP), context.deadline)
        return pb.StopSandboxResponse()

    def _stop(self, end: float, deadline: float | None) -> None:
        changed = self._env.tasks.changed
        with changed:
            self._asked_to_stop = True
            running = self._state in (State.STARTING, State.READY)
        if not running:
            self._end(0)
            return
        self._env.kill_machine("the sandbox is to be stopped")
        with changed:
            left = (end if deadline is None else min(end, deadline)) - time.monotonic()
            if not changed.wait_for(lambda: self._state is State.STOPPED, max(0.0, left)):
                raise DeadlineExceeded("the sandbox's virtual machine does not end")

    def WaitSandbox(self, request: pb.WaitSandboxRequest, context: Context) -> pb.WaitSandboxResponse:  # noqa: N802
        changed = self._env.tasks.changed
        with changed:
            self._require(request.sandbox_id)
        context.on_cancel(self._wake)
        with changed:
            changed.wait_for(lambda: self._state is State.STOPPED or context.cancelled, context.remaining())
            if self._state is not State.STOPPED:
                raise DeadlineExceeded(f"the sandbox is {self._state.value}")
            return pb.WaitSandboxResponse(exit_status=self._exit_status, exited_at=exits.timestamp(self._exited_at))

    def SandboxStatus(self, request: pb.SandboxStatusRequest, _context: Context) -> pb.SandboxStatusResponse:  # noqa: N802
        """From memory, whatever the guest does."""
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
            ready = self._state is State.READY
            response = pb.SandboxStatusResponse(
                sandbox_id=self._sandbox_id, pid=self._pid, state=_READY if ready else _NOT_READY
            )
            for field, moment in (("created_at", self._created_at), ("exited_at", self._exited_at)):
                if moment:
                    getattr(response, field).CopyFrom(exits.timestamp(moment))
        if request.verbose:
            response.info.update(self._info())
        return response

    def _info(self) -> dict[str, str]:
        try:
            group = self._env.group
        except FailedPrecondition:
            return {}
        document = group.status_document
        if not document or len(document) > _MAX_DOCUMENT:
            document = json.dumps(group.status)
        return {ATTESTATION: document}

    def PingSandbox(self, request: pb.PingRequest, _context: Context) -> pb.PingResponse:  # noqa: N802
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
            if self._state is not State.READY:
                raise Unavailable(f"the sandbox is {self._state.value}")
        return pb.PingResponse()

    def ShutdownSandbox(self, request: pb.ShutdownSandboxRequest, context: Context) -> pb.ShutdownSandboxResponse:  # noqa: N802
        """Whatever runs ends, and then the shim does."""
        if request.sandbox_id != self._sandbox_id:
            raise NotFound(f"sandbox {request.sandbox_id} does not exist: not found")
        self._stop(time.monotonic() + STOP, context.deadline)
        with self._env.tasks.changed:
            self._env.is_sandbox = False
            self._env.closing = True
        context.after_reply(self._shutdown)
        return pb.ShutdownSandboxResponse()

    def SandboxMetrics(self, request: pb.SandboxMetricsRequest, context: Context) -> pb.SandboxMetricsResponse:  # noqa: N802
        """The sum over the containers that run."""
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
            running = [found.guest_id for found in self._env.tasks.all() if found.init.state in ALIVE]
        end = time.monotonic() + STATS_TIMEOUT
        deadline = end if context.deadline is None else min(end, context.deadline)
        found = []
        for guest_id in running:
            try:
                found.append(self._env.group.guest.stats(guest_id, deadline=deadline))
            except NotFound:
                continue  # it has just gone
        data = metrics.encode(metrics.total(found), unified=metrics.host_is_unified())
        now = exits.timestamp(time.time_ns())
        return pb.SandboxMetricsResponse(metrics=types_pb2.Metric(timestamp=now, id=self._sandbox_id, data=data))

    def UpdateSandbox(self, request: pb.UpdateSandboxRequest, _context: Context) -> pb.UpdateSandboxResponse:  # noqa: N802
        with self._env.tasks.changed:
            self._require(request.sandbox_id)
        raise Unsupported("a confidential VM keeps the size that it was launched with")

    def _require(self, sandbox_id: str) -> None:
        if sandbox_id != self._sandbox_id or self._state is State.ABSENT:
            raise NotFound(f"sandbox {sandbox_id} does not exist: not found")

    def _machine_ended(self) -> None:
        exits.machine_ended(self._env)
        self._end(0 if self._asked_to_stop else KILLED)

    def _end(self, status: int) -> None:
        """The first call counts."""
        with self._env.tasks.changed:
            if self._state not in (State.STOPPED, State.ABSENT):
                self._state = State.STOPPED
                self._exit_status, self._exited_at = status, time.time_ns()
            self._env.tasks.changed.notify_all()

    def _wake(self) -> None:
        with self._env.tasks.changed:
            self._env.tasks.changed.notify_all()
