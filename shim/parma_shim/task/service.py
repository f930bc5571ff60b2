# SPDX-License-Identifier: Apache-2.0
"""``containerd.task.v3.Task``, served under its version 2 name as well: one method per RPC.

State, Connect and Wait answer from memory. Every request to the guest has a deadline. Errors are of
:mod:`parma_wire.errors`, whose codes containerd maps back.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from parma_shim import __version__, guest_request
from parma_shim.api import events_pb2, process_pb2, runc_options_pb2, task_pb2
from parma_shim.task import checks, creation, exits, metrics, removal
from parma_shim.task.environment import Environment
from parma_shim.task.process import Container, Process
from parma_shim.task.states import ALIVE, ENDED, STATUS, Event, State
from parma_wire.errors import (
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
    Unavailable,
    Unsupported,
)
from ttrpc import Context

SIGINT: Final = 2
SIGKILL: Final = 9
SIGTERM: Final = 15
KILL_TIMEOUT: Final = 5.0
"""Seconds that the guest has for SIGKILL; then the virtual machine is ended instead."""

BUSY: Final = 60.0
"""Seconds that it has for SIGKILL of one of several containers while it answers others: a program in the guest that
hangs is killed after as many, and until then nobody's request is carried out."""

PIDS_TIMEOUT: Final = 0.09
"""Seconds. containerd asks every shim at its start: a guest that hangs is answered for from memory."""

LIST_TIMEOUT: Final = 5.0
"""Seconds that the guest has all the same: whoever asks next gets its answer."""

STATS_TIMEOUT: Final = 1.8
"""Seconds; containerd's collectors give a shim 2."""


class TaskService:
    """Handlers for the ttrpc server; each runs in a thread of its own."""

    def __init__(self, env: Environment, *, shutdown: Callable[[], None]) -> None:
        """``shutdown`` is called when the last task is gone and its end has been answered."""
        self._env = env
        self._shutdown = shutdown

    def Create(self, request: task_pb2.CreateTaskRequest, context: Context) -> task_pb2.CreateTaskResponse:  # noqa: N802
        try:
            return task_pb2.CreateTaskResponse(pid=creation.create(self._env, request, context.deadline))
        except Unsupported as error:
            if request.checkpoint:
                raise
            # containerd 2.x takes Unimplemented for an older shim and asks again in version 2 of this service.
            raise Malformed(error.message, expected=error.expected, hint=error.hint) from error

    def Start(self, request: task_pb2.StartRequest, context: Context) -> task_pb2.StartResponse:  # noqa: N802
        pid = creation.start(self._env, request.id, request.exec_id, context.deadline)
        return task_pb2.StartResponse(pid=pid)

    def Exec(self, request: task_pb2.ExecProcessRequest, _context: Context) -> Empty:  # noqa: N802
        creation.add_exec(self._env, request)
        return Empty()

    def Delete(self, request: task_pb2.DeleteRequest, _context: Context) -> task_pb2.DeleteResponse:  # noqa: N802
        done = removal.delete(self._env, request.id, request.exec_id)
        return task_pb2.DeleteResponse(
            pid=done.pid, exit_status=done.exit_status, exited_at=exits.timestamp(done.exited_at)
        )

    def State(self, request: task_pb2.StateRequest, _context: Context) -> task_pb2.StateResponse:  # noqa: N802
        with self._env.tasks.changed:
            process = self._env.tasks.find(request.id, request.exec_id)
            response = task_pb2.StateResponse(
                id=process.id,
                bundle=process.container.bundle,
                pid=process.pid,
                status=STATUS[process.state],  # type: ignore[arg-type]
                stdin=process.stdio.stdin,
                stdout=process.stdio.stdout,
                stderr=process.stdio.stderr,
                terminal=process.stdio.terminal,
                exit_status=process.exit_status,
                exec_id=process.exec_id,
            )
            if process.exited_at:
                response.exited_at.CopyFrom(exits.timestamp(process.exited_at))
            return response

    def Wait(self, request: task_pb2.WaitRequest, context: Context) -> task_pb2.WaitResponse:  # noqa: N802
        changed = self._env.tasks.changed
        with changed:
            process = self._env.tasks.find(request.id, request.exec_id)
        context.on_cancel(self._wake)  # whoever asked is gone: the thread is needed elsewhere
        with changed:
            changed.wait_for(lambda: process.state in ENDED or context.cancelled, context.remaining())
            if process.state not in ENDED:
                raise DeadlineExceeded(f"{process.title} still runs")
            return task_pb2.WaitResponse(exit_status=process.exit_status, exited_at=exits.timestamp(process.exited_at))

    def _wake(self) -> None:
        with self._env.tasks.changed:
            self._env.tasks.changed.notify_all()

    def Kill(self, request: task_pb2.KillRequest, context: Context) -> Empty:  # noqa: N802
        process = self._find(request.id, request.exec_id)
        if process.state in ENDED:
            raise NotFound(f"{process.title}: process already finished: not found")
        if process.exec_id and not process.pid:
            raise FailedPrecondition(f"{process.title} has not been started")
        forced = request.signal == SIGKILL and not process.exec_id
        if process.container.is_pod and not process.exec_id:
            self._end_pod(process, request.signal)
            return Empty()
        if forced and self._is_alone(process.container):
            process.container.killed_alone = True
        try:
            self._env.group.guest.signal_process(
                process.container.guest_id,
                process.guest_exec_id,
                request.signal,
                all_processes=request.all and not process.exec_id,
                deadline=_sooner(context, KILL_TIMEOUT) if forced else context.deadline,
            )
        except Denied:
            # No policy can keep a host from ending the machine; refusing would only leave it without a handle.
            if not forced or not self._is_alone(process.container):
                raise
            self._env.kill_machine(f"{process.title} is to be killed")
        except (Unavailable, FailedPrecondition) as error:  # or DeadlineExceeded; or a guest that is poisoned
            if not forced:
                raise
            late = isinstance(error, DeadlineExceeded) and not self._is_alone(process.container)
            if not (late and self._ends_in_its_turn(process)):
                self._env.kill_machine(f"{process.title} cannot be killed: {error}")
        return Empty()

    def _ends_in_its_turn(self, process: Process) -> bool:
        """Whether the guest just was busy: it sends a signal also when nobody waits for its answer any more."""
        end = time.monotonic() + BUSY
        while time.monotonic() < end and self._env.group.guest.answers(KILL_TIMEOUT):
            with self._env.tasks.changed:
                if self._env.tasks.changed.wait_for(lambda: process.state in ENDED, KILL_TIMEOUT):
                    return True
        return False

    def _end_pod(self, process: Process, signal: int) -> None:
        """What a pause container does with a signal."""
        if signal not in (SIGKILL, SIGTERM, SIGINT):
            return
        try:
            self._env.group.guest.stop_sandbox(deadline=time.monotonic() + KILL_TIMEOUT)
        except ParmaError as error:
            self._env.kill_machine(f"{process.title} cannot be killed: {error}")

    def Pids(self, request: task_pb2.PidsRequest, _context: Context) -> task_pb2.PidsResponse:  # noqa: N802
        process = self._find(request.id)
        container = process.container
        found = [(process.pid, "")]
        if process.state in ALIVE:
            self._ask_for_processes(container).wait(PIDS_TIMEOUT)
            found = container.pids or found
        return task_pb2.PidsResponse(processes=[_process_info(pid, exec_id) for pid, exec_id in found])

    def _ask_for_processes(self, container: Container) -> threading.Event:
        """Has ``container.pids`` brought up to date, by one question at a time; set when it has been answered.

        An answer that comes late is there for whoever asks next.
        """
        with self._env.tasks.changed:
            if container.listing is not None:
                return container.listing
            container.listing = answered = threading.Event()
        threading.Thread(target=self._list_processes, args=(container, answered), name="pids", daemon=True).start()
        return answered

    def _list_processes(self, container: Container, answered: threading.Event) -> None:
        found = None
        try:
            deadline = time.monotonic() + LIST_TIMEOUT
            with contextlib.suppress(ParmaError):
                found = self._env.group.guest.list_processes(container.guest_id, deadline=deadline)
        finally:
            with self._env.tasks.changed:
                container.listing = None
                if found is not None:
                    names = {process.guest_exec_id: process.exec_id for process in container.execs.values()}
                    others = [(entry.pid, names.get(entry.exec_id, "")) for entry in found if not entry.init]
                    container.pids = [(container.init.pid, ""), *others]
            answered.set()

    def Pause(self, request: task_pb2.PauseRequest, context: Context) -> Empty:  # noqa: N802
        process = self._step(request.id, Event.PAUSE)
        try:
            self._env.group.guest.pause(process.container.guest_id, deadline=context.deadline)
        except BaseException:
            self._settle(process, Event.PAUSE_FAILED)
            raise
        if self._settle(process, Event.PAUSED):
            self._env.publish("/tasks/paused", events_pb2.TaskPaused(container_id=request.id))
        return Empty()

    def Resume(self, request: task_pb2.ResumeRequest, context: Context) -> Empty:  # noqa: N802
        process = self._find(request.id)
        if process.state is not State.PAUSED:
            raise FailedPrecondition(f"{process.title} is {process.state.value}", expected="paused")
        self._env.group.guest.resume(process.container.guest_id, deadline=context.deadline)
        with self._env.tasks.changed:
            if process.state is State.PAUSED:
                process.apply(Event.RESUME)
                self._env.publish("/tasks/resumed", events_pb2.TaskResumed(container_id=request.id))
        return Empty()

    def ResizePty(self, request: task_pb2.ResizePtyRequest, context: Context) -> Empty:  # noqa: N802
        with self._env.tasks.changed:
            process = self._env.tasks.find(request.id, request.exec_id)
            if process.state in ENDED:
                raise FailedPrecondition(f"{process.title} is {process.state.value}")
            if not process.stdio.terminal:
                return Empty()
            if process.state in (State.CREATED, State.STARTING):
                process.size = (request.width, request.height)
                return Empty()
        self._env.group.guest.resize_pty(
            process.container.guest_id, process.guest_exec_id, request.width, request.height, deadline=context.deadline
        )
        return Empty()

    def CloseIO(self, request: task_pb2.CloseIORequest, _context: Context) -> Empty:  # noqa: N802
        with self._env.tasks.changed:
            process = self._env.tasks.find(request.id, request.exec_id)
            if request.stdin:
                process.stdin_closed = True
                if process.io is not None:
                    process.io.finish_input()
        return Empty()

    def Update(self, request: task_pb2.UpdateTaskRequest, context: Context) -> Empty:  # noqa: N802
        limits = checks.parse(request.resources.value, "the resources") if request.resources.value else {}
        checks.check_limits(limits)
        process = self._find(request.id)
        if process.state in ENDED:
            raise FailedPrecondition(f"{process.title} is {process.state.value}")
        self._env.group.guest.update_resources(
            process.container.guest_id, guest_request.resources_request(limits), deadline=context.deadline
        )
        return Empty()

    def Stats(self, request: task_pb2.StatsRequest, context: Context) -> task_pb2.StatsResponse:  # noqa: N802
        process = self._find(request.id)
        stats = self._env.group.guest.stats(process.container.guest_id, deadline=_sooner(context, STATS_TIMEOUT))
        return task_pb2.StatsResponse(stats=metrics.encode(stats, unified=metrics.host_is_unified()))

    def Checkpoint(self, _request: task_pb2.CheckpointTaskRequest, _context: Context) -> Empty:  # noqa: N802
        raise Unsupported("checkpoints are not implemented", hint="the state of a confidential VM cannot be saved")

    def Connect(self, request: task_pb2.ConnectRequest, _context: Context) -> task_pb2.ConnectResponse:  # noqa: N802
        pid = 0
        with self._env.tasks.changed, contextlib.suppress(NotFound):  # by contract not an error
            pid = self._env.tasks.find(request.id).pid
        return task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=pid, version=__version__)

    def Shutdown(self, request: task_pb2.ShutdownRequest, context: Context) -> Empty:  # noqa: N802
        """containerd 2.4 sends it after every Delete: it counts only when nothing is left."""
        with self._env.tasks.changed:
            creating = self._env.tasks.creating(request.id)
            if creating is not None:
                creating.cancelled = True
            left = [container for container in self._env.tasks.all() if container is not creating]
            keeps = bool(left) or self._env.is_sandbox
        if not keeps:
            self._env.closing = True
            context.after_reply(self._shutdown)
        return Empty()

    def _find(self, container_id: str, exec_id: str = "") -> Process:
        with self._env.tasks.changed:
            return self._env.tasks.find(container_id, exec_id)

    def _is_alone(self, container: Container) -> bool:
        with self._env.tasks.changed:
            return self._env.tasks.all() == [container] and not self._env.is_sandbox

    def _step(self, container_id: str, event: Event) -> Process:
        with self._env.tasks.changed:
            process = self._env.tasks.find(container_id)
            process.apply(event)
            return process

    def _settle(self, process: Process, event: Event) -> bool:
        """The end of what :meth:`_step` began; ``False`` when the process exited meanwhile."""
        with self._env.tasks.changed:
            if process.state is not State.PAUSING:
                return False
            process.apply(event)
            self._env.tasks.changed.notify_all()
            return True


def _sooner(context: Context, seconds: float) -> float:
    """A deadline so many seconds from now, or the client's if that is sooner."""
    deadline = time.monotonic() + seconds
    return deadline if context.deadline is None else min(deadline, context.deadline)


def _process_info(pid: int, exec_id: str) -> process_pb2.ProcessInfo:
    info = process_pb2.ProcessInfo(pid=pid)
    if exec_id:
        details = runc_options_pb2.ProcessDetails(exec_id=exec_id)
        info.info.CopyFrom(Any(type_url=details.DESCRIPTOR.full_name, value=details.SerializeToString()))
    return info
