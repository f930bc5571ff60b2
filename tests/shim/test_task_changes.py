# SPDX-License-Identifier: Apache-2.0
"""Pause, Resume, ResizePty and Update. Over a fake guest."""

from __future__ import annotations

import json

import pytest

from parma_shim.api import task_pb2
from parma_shim.task.process import guest_container_id
from parma_wire import guest_pb2
from parma_wire.errors import (
    FailedPrecondition,
    Malformed,
    Unavailable,
    Unsupported,
)
from tests.shim.support import Rig


def test_pause_and_resume(rig: Rig) -> None:
    rig.run("a")
    rig.call("Pause", task_pb2.PauseRequest(id="a"))
    assert rig.status("a") == "PAUSED"
    with pytest.raises(FailedPrecondition):
        rig.call("Pause", task_pb2.PauseRequest(id="a"))
    rig.call("Resume", task_pb2.ResumeRequest(id="a"))
    assert rig.status("a") == "RUNNING"
    with pytest.raises(FailedPrecondition):
        rig.call("Resume", task_pb2.ResumeRequest(id="a"))
    assert rig.topics()[-2:] == ["/tasks/paused a", "/tasks/resumed a"]


def test_a_pause_that_fails_leaves_it_running(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.hang = True
    with pytest.raises(Unavailable):
        rig.call("Pause", task_pb2.PauseRequest(id="a"), timeout=0.01)
    assert rig.status("a") == "RUNNING"


def test_a_terminals_size_set_before_the_start_is_remembered(rig: Rig) -> None:
    rig.create("a", "sleep", terminal=True)
    rig.call("ResizePty", task_pb2.ResizePtyRequest(id="a", width=80, height=25))
    rig.call("Start", task_pb2.StartRequest(id="a"))
    process = rig.group.guest.process(guest_container_id("default", "a"))
    assert process.size == (80, 25)
    rig.call("ResizePty", task_pb2.ResizePtyRequest(id="a", width=100, height=30))
    assert process.size == (100, 30)


def test_resizing_without_a_terminal_does_nothing(rig: Rig) -> None:
    rig.run("a")
    rig.call("ResizePty", task_pb2.ResizePtyRequest(id="a", width=80, height=25))
    assert "resize" not in rig.group.guest.calls


def test_resizing_a_stopped_exec_is_an_error(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "exit", "0", terminal=True)
    rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    rig.wait("a", "e")
    with pytest.raises(FailedPrecondition):
        rig.call("ResizePty", task_pb2.ResizePtyRequest(id="a", exec_id="e", width=1, height=1))


def test_update_is_translated(rig: Rig) -> None:
    rig.create("a")
    request = task_pb2.UpdateTaskRequest(id="a")
    request.resources.value = json.dumps({"memory": {"limit": 1 << 26}, "devices": [{"allow": False}]}).encode()
    rig.call("Update", request)
    assert rig.group.guest.resources == guest_pb2.Resources(memory_limit=1 << 26)
    request.resources.value = b'{"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}'
    with pytest.raises(Unsupported):
        rig.call("Update", request)
    request.resources.value = b"{"
    with pytest.raises(Malformed):
        rig.call("Update", request)
