# SPDX-License-Identifier: Apache-2.0
"""Exits: announced once, in the right order, whatever ends first. Over a fake guest."""

from __future__ import annotations

from typing import Any

import pytest

from parma_shim.api import task_pb2
from parma_shim.task import exits
from parma_shim.task.process import guest_container_id
from parma_wire.errors import (
    FailedPrecondition,
)
from tests.shim.support import Rig


def test_the_exit_of_a_short_process_comes_after_its_start(rig: Rig) -> None:
    for number in range(20):
        rig.run(f"c{number}", "exit", "0")
        rig.wait(f"c{number}")
        own = [topic for topic in rig.topics() if topic.endswith(f" c{number}")]
        assert own == [f"/tasks/create c{number}", f"/tasks/start c{number}", f"/tasks/exit c{number}"]


def test_exec_exits_are_reported_before_inits(rig: Rig) -> None:
    rig.run("a")
    for number in range(5):
        rig.exec("a", f"e{number}", "sleep")
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id=f"e{number}"))
    rig.kill("a")
    assert rig.wait("a") == 137
    ended = [topic for topic in rig.topics() if topic.startswith("/tasks/exit")]
    assert ended[-1] == "/tasks/exit a"
    assert sorted(ended[:-1]) == [f"/tasks/exit e{number}" for number in range(5)]


def test_an_exec_that_outlives_init_is_killed_and_reported_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "EXECS", 0.05)
    rig.run("a")
    rig.exec("a", "e", "sleep")
    rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    rig.group.guest.process(guest_container_id("default", "a")).exit(0)
    assert rig.wait("a") == 0
    assert rig.wait("a", "e") == 137
    assert rig.topics()[-2:] == ["/tasks/exit e", "/tasks/exit a"]


def test_an_exec_whose_start_is_answered_after_inits_exit_is_never_reported(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "EXECS", 0.05)
    rig.run("a")
    rig.exec("a", "e", "sleep")
    init = rig.group.guest.process(guest_container_id("default", "a"))
    execute = rig.group.guest.exec_process

    def late(*arguments: Any, **options: Any) -> int:
        pid = execute(*arguments, **options)
        init.exit(0)
        assert rig.wait("a") == 0
        return pid

    monkeypatch.setattr(rig.group.guest, "exec_process", late)
    with pytest.raises(FailedPrecondition, match="ended while exec e"):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    assert rig.status("a", "e") == "STOPPED"
    assert rig.topics()[-2:] == ["/tasks/exec-added e", "/tasks/exit a"]


def test_the_machines_death_ends_everything_once(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.exec("a", "e", "sleep")
    rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    rig.group.machine_dies()
    assert [rig.wait("a"), rig.wait("b"), rig.wait("a", "e")] == [137, 137, 137]
    ended = [topic for topic in rig.topics() if topic.startswith("/tasks/exit")]
    assert sorted(ended) == ["/tasks/exit a", "/tasks/exit b", "/tasks/exit e"]
    assert ended.index("/tasks/exit e") < ended.index("/tasks/exit a")
    assert rig.delete("b").exit_status == 137


def test_an_oom_kill_is_announced_before_the_exit(rig: Rig) -> None:
    rig.run("a")
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.oom_killed = True
    process.exit(137)
    rig.wait("a")
    assert rig.topics()[-2:] == ["/tasks/oom a", "/tasks/exit a"]
