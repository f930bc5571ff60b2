# SPDX-License-Identifier: Apache-2.0
"""Create, Exec and Start: from a request to a running process, or to nothing at all when a step fails."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from parma_shim import guest_request
from parma_shim.api import events_pb2, task_pb2
from parma_shim.stdio.process import Paths, ProcessIO
from parma_shim.task import checks, exits, hooks
from parma_shim.task.environment import Environment
from parma_shim.task.ports import ContainerSpec, Group
from parma_shim.task.process import START_FAILED, Container, Process, guest_container_id
from parma_shim.task.states import ENDED, Event, State
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ParmaError,
    Unavailable,
    Unsupported,
)


def create(env: Environment, request: task_pb2.CreateTaskRequest, deadline: float | None) -> int:
    """Creates a container and returns the process id to tell containerd: the virtual machine's on the host.

    Raises:
        ParmaError: nothing of it is left.
    """
    if request.checkpoint:
        raise Unsupported("restoring from a checkpoint is not implemented")
    paths = Paths(request.stdin, request.stdout, request.stderr, request.terminal)
    with env.tasks.changed:
        guest_id = guest_container_id(env.namespace, request.id, env.tasks.begun)
        container = Container(request.id, guest_id, request.bundle, paths)
        env.tasks.add(container)
    try:
        _create(env, container, request, deadline)
    except BaseException:
        with env.tasks.changed:
            container.init.apply(Event.FAILED)
            env.tasks.remove(container)
            env.tasks.changed.notify_all()
        raise
    exits.watch(env, container.init)
    env.on_created(container.init.pid)
    return container.init.pid


def _create(
    env: Environment, container: Container, request: task_pb2.CreateTaskRequest, deadline: float | None
) -> None:
    spec = _read_spec(request.bundle)
    checks.check_container(spec)
    checks.check_rootfs(request.rootfs)
    container.hooks = hooks.parse(spec, container.id, request.bundle)
    container.is_pod = guest_request.is_sandbox_container(spec)
    spec["process"]["terminal"] = request.terminal
    io = ProcessIO(container.init.stdio, container_id=container.id, namespace=env.namespace, registry=env.registry)
    try:
        group = env.group_for_creation(lambda: exits.machine_ended(env))
        group.create_container(
            ContainerSpec(
                container_id=container.id,
                guest_id=container.guest_id,
                bundle=Path(request.bundle),
                oci=spec,
                terminal=request.terminal,
                stdin=bool(request.stdin),
                rootfs=tuple(request.rootfs),
            ),
            deadline=deadline,
            on_running=partial(_run_creation_hooks, env, container, group, deadline),
        )
        try:
            _require_time(container, deadline)
            io.connect(group.open_stream_connection(), container.guest_id, "")
            _commit(env, container, request, group, io)
        except BaseException:
            with contextlib.suppress(ParmaError):
                group.delete_container(container.id)
            raise
    except BaseException:
        io.close()
        if container.hooks_ran:
            hooks.run_and_log(env, container.hooks, hooks.AFTER_END, "stopped", 0)
        raise


def _run_creation_hooks(env: Environment, container: Container, group: Group, deadline: float | None) -> None:
    container.hooks_ran = True
    hooks.run(env, container.hooks, hooks.AT_CREATION, "creating", group.vm_pid, deadline=deadline)


def _require_time(container: Container, deadline: float | None) -> None:
    """Whether whoever asked still waits for it."""
    if deadline is not None and time.monotonic() > deadline:
        raise DeadlineExceeded(f"container {container.id} was created too late")


def _commit(
    env: Environment, container: Container, request: task_pb2.CreateTaskRequest, group: Group, io: ProcessIO
) -> None:
    pid = group.vm_pid
    with env.tasks.changed:
        if container.cancelled or env.closing:
            raise FailedPrecondition(f"container {container.id} was deleted while it was being created")
        if not pid:
            raise Unavailable("the virtual machine has ended")
        container.init.pid = pid
        container.init.io = io
        container.init.apply(Event.CREATED)
        env.publish(
            "/tasks/create",
            events_pb2.TaskCreate(
                container_id=container.id,
                bundle=request.bundle,
                rootfs=request.rootfs,
                io=events_pb2.TaskIO(
                    stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
                ),
                pid=pid,
            ),
        )
        env.tasks.changed.notify_all()


def _read_spec(bundle: str) -> dict[str, Any]:
    try:
        return checks.parse((Path(bundle) / "config.json").read_bytes(), "config.json")
    except FileNotFoundError:
        raise NotFound(f"the bundle {bundle} has no config.json") from None
    except OSError as error:
        raise Unavailable(f"cannot read config.json in {bundle}: {error.strerror}") from None


def add_exec(env: Environment, request: task_pb2.ExecProcessRequest) -> None:
    """Reserves an exec's id; nothing runs before Start.

    Raises:
        NotFound, AlreadyExists, FailedPrecondition, Malformed, Unsupported
    """
    spec = checks.parse(request.spec.value, "the exec's specification")
    checks.check_process(spec)
    message = guest_request.process_request(spec, stdin=bool(request.stdin))
    message.terminal = request.terminal
    with env.tasks.changed:
        init = env.tasks.find(request.id)
        if init.state in ENDED:
            raise FailedPrecondition(f"{init.title} is {init.state.value}", expected="a running container")
        container = init.container
        if request.exec_id in container.execs:
            raise AlreadyExists(f"exec {request.exec_id} of {init.title} exists already: already exists")
        paths = Paths(request.stdin, request.stdout, request.stderr, request.terminal)
        process = Process(container, request.exec_id, paths, State.CREATED)
        process.spec = message
        container.execs[request.exec_id] = process
        env.publish("/tasks/exec-added", events_pb2.TaskExecAdded(container_id=request.id, exec_id=request.exec_id))


def start(env: Environment, container_id: str, exec_id: str, deadline: float | None) -> int:
    """Starts a created process; returns its id.

    Raises:
        NotFound, FailedPrecondition: no such process, or not in a state to be started.
        ParmaError: the guest's reason. The process is stopped then, and its streams are at their end.
    """
    with env.tasks.changed:
        process = env.tasks.find(container_id, exec_id)
        init = process.container.init
        if exec_id and init.state is not State.RUNNING:
            raise FailedPrecondition(f"{init.title} is {init.state.value}", expected="a running container")
        process.apply(Event.START)
    try:
        pid = _start_exec(env, process) if exec_id else _start_init(env, process, deadline)
        _started(env, process, pid)
    except BaseException:
        _start_failed(env, process)
        raise
    env.record("started", process, pid=pid)
    if exec_id:
        exits.watch(env, process)
    else:
        hooks.run_and_log(env, process.container.hooks, hooks.AFTER_START, "running", process.pid)
        env.group.refresh_status()
    if process.size is not None:
        with contextlib.suppress(ParmaError):  # it may have ended already
            env.group.guest.resize_pty(process.container.guest_id, process.guest_exec_id, *process.size)
    return pid


def _start_init(env: Environment, process: Process, deadline: float | None) -> int:
    try:
        env.group.require_attested(deadline=deadline)
    except ParmaError:
        env.group.refresh_status()  # the first verdict came before this container had a label to show it
        raise
    if process.io is not None:
        process.io.start_input()
    env.group.guest.start_container(process.container.guest_id, deadline=deadline)
    return process.pid


def _start_exec(env: Environment, process: Process) -> int:
    container = process.container
    with env.tasks.changed:
        process.guest_exec_id = container.next_guest_exec_id()
        spec, process.spec = process.spec, None
    assert spec is not None  # noqa: S101 - set by add_exec, and a process starts once
    io = ProcessIO(process.stdio, container_id=container.id, namespace=env.namespace, registry=env.registry)
    with env.tasks.changed:
        process.io = io
        if process.stdin_closed:
            io.finish_input()
    connection = env.group.open_stream_connection()
    try:
        # Not the caller's deadline: with one that may be run yet, nobody would have a handle on the process.
        pid = env.group.guest.exec_process(container.guest_id, process.guest_exec_id, spec)
    except BaseException as error:
        connection.close()
        if isinstance(error, DeadlineExceeded):
            ending = partial(_end_late, env, container.guest_id, process.guest_exec_id)
            threading.Thread(target=ending, name="late-exec", daemon=True).start()
        raise
    try:
        io.connect(connection, container.guest_id, process.guest_exec_id)
        io.start_input()
    except BaseException:
        # It runs already, and nobody would have a handle on it: a client's fifo can vanish in between.
        with contextlib.suppress(ParmaError):
            env.group.guest.signal_process(container.guest_id, process.guest_exec_id, signal.SIGKILL)
        raise
    return pid


def _end_late(env: Environment, guest_id: str, exec_id: str) -> None:
    """The guest begins nothing whose time is over, but it may have been about to when we gave up."""
    with contextlib.suppress(ParmaError):  # mostly there is no such process
        with contextlib.suppress(DeadlineExceeded):  # it is done all the same, in its turn
            env.group.guest.signal_process(guest_id, exec_id, signal.SIGKILL)
        env.group.guest.wait_process(guest_id, exec_id)
        env.group.guest.delete_process(guest_id, exec_id)


def _started(env: Environment, process: Process, pid: int) -> None:
    """Event and state in one step. After a container's exit nothing of its execs is reported any more."""
    init = process.container.init
    with env.tasks.changed:
        if process.state is not State.STARTING:
            raise Unavailable(f"{process.title} ended while it was being started")
        if process is not init and init.state in ENDED:
            raise FailedPrecondition(f"{init.title} ended while {process.title} was being started")
        process.pid = pid
        process.apply(Event.STARTED)
        _publish_start(env, process)
        env.tasks.changed.notify_all()


def _start_failed(env: Environment, process: Process) -> None:
    """No exit is reported for what never ran, but its readers must not wait for ever."""
    with env.tasks.changed:
        if process.state is State.STARTING:
            process.end(Event.START_FAILED, START_FAILED)
            env.tasks.changed.notify_all()
        io = process.io
    if io is not None:
        io.close()


def _publish_start(env: Environment, process: Process) -> None:
    container_id = process.container.id
    if process.exec_id:
        env.publish(
            "/tasks/exec-started",
            events_pb2.TaskExecStarted(container_id=container_id, exec_id=process.exec_id, pid=process.pid),
        )
    else:
        env.publish("/tasks/start", events_pb2.TaskStart(container_id=container_id, pid=process.pid))
