# SPDX-License-Identifier: Apache-2.0
"""Processes of containers in the enforcer's group: how they begin, who hears of their end, what reaches them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from parma_guest.processes import Process
from parma_guest.requests import SignalProcess
from parma_guest.values import ExecId
from parma_wire.errors import DeadlineExceeded, FailedPrecondition, NotFound
from tests.guest.fakes import CONTAINER, Rig, never
from tests.guest.group_steps import INIT, execution, running


def test_a_process_that_nobody_waits_for_any_more_is_not_begun(rig: Rig) -> None:
    running(rig)
    with pytest.raises(DeadlineExceeded):
        rig.group.execute(execution("one"), lambda: 0.0)
    assert len(rig.runtime.children) == 1
    rig.group.execute(execution("one"), lambda: 0.1)
    assert len(rig.runtime.children) == 2


def test_exec_in_a_stopped_container_fails(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(0)
    with pytest.raises(FailedPrecondition, match="stopped"):
        rig.group.execute(execution())


def test_a_process_that_lives_on_when_its_container_has_ended_meanwhile_is_not_kept(rig: Rig) -> None:
    running(rig)
    launch = rig.runtime.execute

    def execute(*arguments: Any) -> Any:
        rig.runtime.children[0].finish(0)  # from here on its number may be another process's, and that one's namespaces
        return launch(*arguments)

    rig.runtime.execute = execute  # type: ignore[assignment,method-assign]
    with pytest.raises(FailedPrecondition, match="stopped meanwhile"):
        rig.group.execute(execution())
    with pytest.raises(NotFound):
        rig.group.delete_process(CONTAINER, ExecId("one"))
    assert not rig.enforcer.poisoned


def test_a_process_that_ended_with_its_container_has_run(rig: Rig) -> None:
    running(rig)
    launch = rig.runtime.execute

    def execute(*arguments: Any) -> Any:
        launched = launch(*arguments)
        for child in reversed(rig.runtime.children):  # init ends last
            child.finish(0)
        return launched

    rig.runtime.execute = execute  # type: ignore[assignment,method-assign]
    rig.group.execute(execution())
    rig.group.delete_process(CONTAINER, ExecId("one"))


def test_a_signal_for_all_needs_the_policy_for_each_process(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution("one"))
    rig.group.execute(execution("two", args=["/bin/cat"]))
    rig.engine.requests.clear()
    rig.group.signal(SignalProcess(CONTAINER, INIT, 9, all=True))
    asked = [(request["isInitProcess"], request["argList"]) for _, request in rig.engine.requests]
    assert asked == [(True, ["/bin/app"]), (False, ["/bin/ls"]), (False, ["/bin/cat"])]


def test_a_signal_to_a_process_that_has_ended_is_not_found(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(0)
    with pytest.raises(NotFound, match="already finished"):
        rig.group.signal(SignalProcess(CONTAINER, INIT, 9, all=False))


def test_any_number_of_waiters_get_the_status_and_a_gone_one_leaves(rig: Rig) -> None:
    running(rig)
    codes: list[int] = []
    waiters = [
        threading.Thread(target=lambda: codes.append(rig.group.wait(CONTAINER, INIT, never).code)) for _ in range(5)
    ]
    for waiter in waiters:
        waiter.start()
    gone: list[Any] = []
    cancelled = threading.Event()

    def leave() -> None:
        with pytest.raises(NotFound):
            rig.group.wait(CONTAINER, INIT, gone.append)
        cancelled.set()

    leaver = threading.Thread(target=leave)
    leaver.start()
    while not gone:
        cancelled.wait(0.01)
    gone[0]()
    assert cancelled.wait(60)
    rig.runtime.children[0].finish(42)
    for waiter in [*waiters, leaver]:
        waiter.join(60)
    assert codes == [42] * 5
    assert rig.group.wait(CONTAINER, INIT, never).code == 42


def test_waits_that_were_given_up_leave_nothing_behind(rig: Rig) -> None:
    running(rig)
    callbacks = rig.runtime.children[0]._callbacks
    before = list(callbacks)
    for _ in range(10):
        with pytest.raises(NotFound):
            rig.group.wait(CONTAINER, INIT, lambda cancel: cancel())
    assert callbacks == before


def test_an_oom_kill_is_told_apart_from_another_kill(rig: Rig, tmp_path: Path) -> None:
    running(rig)
    directory = tmp_path / CONTAINER
    directory.mkdir()
    (directory / "memory.events").write_text("oom 1\noom_kill 1\n")
    (directory / "cgroup.kill").write_text("")
    rig.runtime.children[0].finish(137)
    status = rig.group.wait(CONTAINER, INIT, never)
    assert (status.code, status.oom_killed) == (137, True)
    assert (directory / "cgroup.kill").read_text() == "1"  # whoever is left in the container goes too


def test_an_exec_that_was_killed_after_an_earlier_want_of_memory_was_not_killed_for_that(
    rig: Rig, tmp_path: Path
) -> None:
    running(rig)
    directory = tmp_path / CONTAINER
    directory.mkdir()
    (directory / "memory.events").write_text("oom 1\noom_kill 1\n")
    rig.group.execute(execution())
    rig.runtime.children[1].finish(137)
    status = rig.group.wait(CONTAINER, ExecId("one"), never)
    assert (status.code, status.oom_killed) == (137, False)


def test_processes_are_listed_while_others_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    running(rig)
    rig.group.execute(execution("one"))

    execs = rig.group._members.containers[CONTAINER].execs

    def exited(process: Process) -> bool:
        if not process.exec_id.is_init:  # in the middle of the listing
            execs[ExecId("two")] = process
        return False

    (rig.host._directory / CONTAINER).mkdir()
    (rig.host._directory / CONTAINER / "cgroup.procs").write_text("1000\n1001\n")
    monkeypatch.setattr(Process, "exited", property(exited))
    assert rig.group.processes(CONTAINER) == [(1000, "", True), (1001, "one", False)]
