# SPDX-License-Identifier: Apache-2.0
"""How processes end: each is waited for in a thread, and its end is reported once, in the right order.

A process's exit is reported when its output is complete, or soon after if somebody else holds the pipe or the reader
is slow; what is missing then still flows until Delete. A container's first process is reported after its execs. When
the virtual machine ends, or the connection to the guest does, everything that lived in it has exited with 137.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from parma_shim.api import events_pb2
from parma_shim.task.environment import Environment
from parma_shim.task.process import KILLED, Container, Process
from parma_shim.task.states import ALIVE, Event, State
from parma_wire.errors import NotFound, ParmaError

DRAIN: Final = 0.4
"""Seconds that an exit waits for the process's output."""

EXECS: Final = 0.4
"""Seconds that the end of a container waits for its execs to end by themselves, and once more after killing them."""

MACHINE: Final = 1.0
"""Seconds that the exit of a container that was killed alone waits for the end of its virtual machine."""

START: Final = 30.0
"""Seconds that an exit waits for the answer to its own Start, so that the start is reported first."""

_SIGKILL: Final = 9


def timestamp(nanoseconds: int) -> Timestamp:
    """Nanoseconds since 1970."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def watch(env: Environment, process: Process) -> None:
    """Reports the process's end when it comes. Returns at once."""
    threading.Thread(target=_watch, args=(env, process), name="wait", daemon=True).start()


def machine_ended(env: Environment) -> None:
    """Everything has exited: reported in the background, as it may be news to many. Returns at once."""
    threading.Thread(target=_end_all, args=(env,), name="vm-exit", daemon=True).start()


def _watch(env: Environment, process: Process) -> None:
    status, oom_killed = KILLED, False
    try:
        status, oom_killed = env.group.guest.wait_process(process.container.guest_id, process.guest_exec_id)
    except ParmaError as error:
        with env.tasks.changed:
            if process.state not in ALIVE:
                return  # it was deleted, and the guest has forgotten it
        if not isinstance(error, NotFound):
            env.kill_machine(f"waiting for {process.title} failed: {error}")
    finish(env, process, status, oom_killed=oom_killed)


def _end_all(env: Environment) -> None:
    with env.tasks.changed:
        processes = [container.init for container in env.tasks.all()]
    for process in processes:
        finish(env, process, KILLED)


def finish(env: Environment, process: Process, status: int, *, oom_killed: bool = False) -> None:
    """Reports an exit, unless that has been done."""
    with env.tasks.changed:
        if process.known_end is None:
            process.known_end = status, oom_killed
        status, oom_killed = process.known_end
    if not process.exec_id:
        _finish_execs(env, process.container)
    drained = True
    if process.io is not None:
        process.io.stop_input()
        drained = process.io.drain(DRAIN)
    if drained and not process.exec_id and process.container.killed_alone:
        _end_machine(env)
    with env.tasks.changed:
        env.tasks.changed.wait_for(lambda: process.state is not State.STARTING, START)
        reported = _report(env, process, status, oom_killed=oom_killed)
    if reported:
        env.record("exited", process, status=status, oom_killed=str(oom_killed).lower())
    if reported and not process.exec_id:
        env.on_exited(process.container.bundle, process.pid, status, process.exited_at)


def _end_machine(env: Environment) -> None:
    """The process that containerd knows is the machine's: whoever killed it may look whether it is gone."""
    env.group.kill()
    env.machine_gone.wait(MACHINE)


def _report(env: Environment, process: Process, status: int, *, oom_killed: bool = False) -> bool:
    """Under the lock: event and state in one step. Whether it was news."""
    if process.state not in ALIVE:
        return False
    process.end(Event.EXIT, status)
    if oom_killed:
        env.publish("/tasks/oom", events_pb2.TaskOOM(container_id=process.container.id))
    env.publish(
        "/tasks/exit",
        events_pb2.TaskExit(
            container_id=process.container.id,
            id=process.id,
            pid=process.pid,
            exit_status=status,
            exited_at=timestamp(process.exited_at),
        ),
    )
    env.tasks.changed.notify_all()
    return True


def _finish_execs(env: Environment, container: Container) -> None:
    """Waits for the execs of a container whose first process has ended; ends those that stay."""
    with env.tasks.changed:
        if env.tasks.changed.wait_for(lambda: not (_running_execs(container) or _starting_execs(container)), EXECS):
            return
        left = _running_execs(container)
    for process in left:
        try:
            env.group.guest.signal_process(container.guest_id, process.guest_exec_id, _SIGKILL, deadline=_soon())
        except ParmaError as error:
            env.log.warning(f"{process.title} cannot be killed: {error}")
    with env.tasks.changed:
        env.tasks.changed.wait_for(lambda: not _running_execs(container), EXECS)
        for process in _running_execs(container):
            _report(env, process, KILLED)


def _running_execs(container: Container) -> list[Process]:
    return [process for process in container.execs.values() if process.state in ALIVE and process.pid]


def _starting_execs(container: Container) -> list[Process]:
    """Those that may just be known to run; one that stays so is refused by its Start (``creation``)."""
    return [process for process in container.execs.values() if process.state is State.STARTING]


def _soon() -> float:
    return time.monotonic() + EXECS
