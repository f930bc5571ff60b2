# SPDX-License-Identifier: Apache-2.0
"""Delete and Shutdown. Over a fake guest."""

from __future__ import annotations

import threading

import pytest

from parma_shim.api import task_pb2
from parma_shim.task.process import Process
from parma_wire.errors import (
    FailedPrecondition,
)
from tests.shim.fakes import PATIENCE
from tests.shim.support import Rig


def test_a_running_container_cannot_be_deleted(rig: Rig) -> None:
    rig.run("a")
    with pytest.raises(FailedPrecondition):
        rig.delete("a")


def test_a_created_container_can_be_deleted(rig: Rig) -> None:
    rig.create("a")
    assert rig.delete("a").exit_status == 0
    assert rig.topics() == ["/tasks/create a", "/tasks/delete a"]


def test_deleting_the_last_container_ends_the_machine_and_one_of_several_does_not(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.run("b", "exit", "0")
    rig.wait("a")
    rig.wait("b")
    rig.delete("a")
    assert rig.group.deleted == ["a"]
    assert not rig.group.killed
    rig.delete("b")
    assert rig.group.killed


def test_shutdown_counts_only_when_nothing_is_left(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.run("b", "exit", "0")
    rig.wait("a")
    rig.wait("b")
    rig.delete("a")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="a"))
    assert not rig.ended.is_set()
    rig.delete("b")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="b"))
    assert rig.ended.is_set()
    with pytest.raises(FailedPrecondition, match="shutting down"):
        rig.create("c")


def test_a_second_delete_waits_for_the_first_and_gets_the_same_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run("a")
    rig.run("b", "exit", "5")
    rig.wait("b")
    inside, second, go_on = threading.Event(), threading.Event(), threading.Event()
    find = rig.env.tasks.find

    def slow(_container_id: str) -> None:
        inside.set()
        assert go_on.wait(PATIENCE)

    def noted(container_id: str, exec_id: str = "") -> Process:
        second.set()  # under the lock, which is free again when it waits for the first one
        return find(container_id, exec_id)

    rig.group.on_delete = slow
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(rig.delete("b").exit_status)) for _ in range(2)]
    threads[0].start()
    assert inside.wait(PATIENCE)
    assert rig.status("b") == "STOPPED"
    monkeypatch.setattr(rig.env.tasks, "find", noted)
    threads[1].start()
    assert second.wait(PATIENCE)
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == [5, 5]
    assert [topic for topic in rig.topics() if "delete" in topic] == ["/tasks/delete b"]
