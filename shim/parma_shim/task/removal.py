# SPDX-License-Identifier: Apache-2.0
"""Delete: the exit status one last time, and everything given back.

It takes a bounded time whatever the guest does, and can be repeated: a second call while the first is under way waits
for it and gets the same answer.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from parma_shim.api import events_pb2
from parma_shim.task import hooks
from parma_shim.task.environment import Environment
from parma_shim.task.exits import timestamp
from parma_shim.task.process import Process
from parma_shim.task.states import Event, State
from parma_wire.errors import DeadlineExceeded, NotFound, ParmaError

DRAIN: Final = 3.0
"""Seconds for the rest of the output; less than the 10 after which CRI gives up on events."""

CLEANUP: Final = 5.0
"""Seconds for the guest to forget an exec."""


class Deleted(NamedTuple):
    """How the process had ended; ``exited_at`` in nanoseconds since 1970, 0 for one that never ran."""

    pid: int
    exit_status: int
    exited_at: int


def delete(env: Environment, container_id: str, exec_id: str) -> Deleted:
    """Forgets a process that does not run; a container with all its execs.

    Raises:
        NotFound: no such process.
        FailedPrecondition: it runs.
        DeadlineExceeded: another Delete is under way and takes long.
    """
    with env.tasks.changed:
        if not exec_id:
            _cancel_creation(env, container_id)
        process = env.tasks.find(container_id, exec_id)
        if process.state is State.DELETING:
            if not env.tasks.changed.wait_for(lambda: process.state is State.DELETED, DRAIN + CLEANUP):
                raise DeadlineExceeded(f"{process.title} is still being deleted")
            return _result(process)
        process.apply(Event.DELETE)
    try:
        _close_all_io(process)
        _forget_in_guest(env, process)
    finally:
        _forget(env, process)
    env.record("deleted", process)
    if not exec_id:
        hooks.run_and_log(env, process.container.hooks, hooks.AFTER_END, "stopped", 0)
        env.on_deleted(process.container.bundle, process.pid)
    return _result(process)


def _result(process: Process) -> Deleted:
    return Deleted(process.pid, process.exit_status, process.exited_at)


def _cancel_creation(env: Environment, container_id: str) -> None:
    """Under the lock. A client that lost patience with Create deletes; Create finds out and undoes itself."""
    container = env.tasks.creating(container_id)
    if container is None:
        return
    container.cancelled = True
    if len(env.tasks.all()) == 1 and not env.is_sandbox:
        env.kill_machine(f"{container.init.title} is deleted while it is being created")
    raise NotFound(f"container {container_id} does not exist: not found")


def _close_all_io(process: Process) -> None:
    """The process's, and with a container's init those of its execs: all within ``DRAIN``."""
    end = time.monotonic() + DRAIN
    execs = () if process.exec_id else tuple(process.container.execs.values())
    for one in (process, *execs):
        if one.io is not None:
            if one.exited_at:
                one.io.drain(max(0.0, end - time.monotonic()))
            one.io.close()


def _forget_in_guest(env: Environment, process: Process) -> None:
    """Frees what the guest holds. What fails here goes with the virtual machine; the task is over all the same."""
    container = process.container
    try:
        if process.exec_id:
            if process.guest_exec_id:
                env.group.guest.delete_process(
                    container.guest_id, process.guest_exec_id, deadline=time.monotonic() + CLEANUP
                )
        elif _is_last(env, process):
            env.group.kill()  # nothing in there is needed any more: quicker than tidying up first
        else:
            env.group.delete_container(container.id)
    except ParmaError as error:
        env.log.warning(f"{process.title} could not be cleaned up in the guest: {error}")


def _is_last(env: Environment, process: Process) -> bool:
    with env.tasks.changed:
        return not env.is_sandbox and all(container is process.container for container in env.tasks.all())


def _forget(env: Environment, process: Process) -> None:
    container = process.container
    with env.tasks.changed:
        process.apply(Event.DELETED)
        if process.exec_id:
            container.execs.pop(process.exec_id, None)
        else:
            env.tasks.remove(container)
            env.publish(
                "/tasks/delete",
                events_pb2.TaskDelete(
                    container_id=container.id,
                    pid=process.pid,
                    exit_status=process.exit_status,
                    exited_at=timestamp(process.exited_at),
                ),
            )
        env.tasks.changed.notify_all()
