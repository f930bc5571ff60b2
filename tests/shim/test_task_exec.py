# SPDX-License-Identifier: Apache-2.0
"""Exec and the life of what it starts. Over a fake guest."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from parma_shim.api import task_pb2
from parma_shim.stdio.process import ProcessIO
from parma_shim.task.process import guest_container_id
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    NotFound,
)
from tests.descriptors import descriptors
from tests.shim.support import LIFE, Rig, eventually


def test_exec_runs_beside_init_and_is_deleted_by_itself(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "exit", "7")
    assert rig.status("a", "e") == "CREATED"
    assert rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e")).pid > 0
    assert rig.wait("a", "e") == 7
    assert rig.delete("a", "e").exit_status == 7
    assert rig.status("a") == "RUNNING"
    assert rig.topics() == [*LIFE[:2], "/tasks/exec-added e", "/tasks/exec-started e", "/tasks/exit e"]


def test_exec_state_carries_the_execs_id(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    state = rig.call("State", task_pb2.StateRequest(id="a", exec_id="e"))
    assert (state.id, state.exec_id) == ("e", "e")


def test_an_exec_id_is_unique_while_it_exists_and_free_after_delete(rig: Rig) -> None:
    rig.run("a")
    for _ in range(3):
        rig.exec("a", "e", "exit", "0")
        with pytest.raises(AlreadyExists):
            rig.exec("a", "e", "exit", "0")
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
        rig.wait("a", "e")
        rig.delete("a", "e")
    names = [exec_id for _, exec_id in rig.group.guest.used]
    assert len(set(names)) == 3


@pytest.mark.parametrize(("program", "error"), [("missing", NotFound), ("denied", Denied)])
def test_an_exec_that_cannot_start_ends_and_can_be_deleted(rig: Rig, program: str, error: type[Exception]) -> None:
    rig.run("a")
    rig.exec("a", "e", program)
    with pytest.raises(error):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    assert rig.wait("a", "e") == 255
    rig.delete("a", "e")
    assert [topic for topic in rig.topics() if "exit" in topic] == []


def test_an_exec_for_which_descriptors_are_lacking_ends_and_keeps_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    eventfd = os.eventfd
    given: list[int] = []

    def only_one(*arguments: int) -> int:
        if given:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        given.append(eventfd(*arguments))
        return given[0]

    with monkeypatch.context() as starved:
        starved.setattr(os, "eventfd", only_one)
        with pytest.raises(OSError, match="Too many open files"):
            rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given[0])
    assert rig.wait("a", "e") == 255
    rig.delete("a", "e")


def test_an_exec_whose_stdin_vanishes_while_it_starts_does_not_run_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")

    def vanished(_io: ProcessIO) -> None:
        raise NotFound("the fifo has gone")

    monkeypatch.setattr(ProcessIO, "start_input", vanished)
    with pytest.raises(NotFound, match="fifo"):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    (started,) = [process for (_, exec_id), process in rig.group.guest.processes.items() if exec_id]
    assert started.exited.is_set()


def test_an_exec_that_begins_after_it_was_given_up_is_killed_and_forgotten(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    rig.group.guest.late_execs = True
    with pytest.raises(DeadlineExceeded):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    eventually(lambda: len(rig.group.guest.processes) == 1, "the exec to be gone from the guest")
    assert "signal 9" in rig.group.guest.calls
    assert rig.wait("a", "e") == 255
    rig.delete("a", "e")


def test_an_exec_that_never_started_can_be_deleted_and_not_killed(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    with pytest.raises(FailedPrecondition):
        rig.kill("a", exec_id="e")
    assert rig.delete("a", "e").exit_status == 0


def test_exec_in_a_stopped_container_is_refused(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "late", "sleep")
    rig.kill("a")
    rig.wait("a")
    with pytest.raises(FailedPrecondition):
        rig.exec("a", "e", "sleep")
    with pytest.raises(FailedPrecondition):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="late"))


def test_hundreds_of_execs_leave_nothing_behind(rig: Rig) -> None:
    rig.run("a")
    before = descriptors()
    threads = threading.active_count()  # other tests' among them
    for number in range(300):
        rig.exec("a", f"e{number}", "exit", "0")
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id=f"e{number}"))
        rig.wait("a", f"e{number}")
        rig.delete("a", f"e{number}")
    eventually(lambda: len(descriptors() - before) <= 4, "descriptors to be closed")
    eventually(lambda: threading.active_count() < threads + 30, "threads to end")
    assert rig.env.tasks.find("a").container.execs == {}
    assert list(rig.group.guest.processes) == [(guest_container_id("default", "a"), "")]
