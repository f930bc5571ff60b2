# SPDX-License-Identifier: Apache-2.0
"""State, Wait, Pids, Stats and Connect: answered from memory where possible, also beside a guest that hangs (fake)."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from parma_shim.api import cgroups_v1_pb2, cgroups_v2_pb2, runc_options_pb2, task_pb2
from parma_shim.task import metrics, service
from parma_wire import guest_pb2
from parma_wire.errors import (
    DeadlineExceeded,
    NotFound,
)
from tests.shim.fakes import PATIENCE
from tests.shim.support import Rig, eventually


def test_wait_answers_many_and_again_until_delete(rig: Rig) -> None:
    rig.run("a")
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(rig.wait("a"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    rig.kill("a")
    for thread in threads:
        thread.join()
    assert answers == [137] * 5
    assert rig.wait("a") == 137


def test_wait_before_start_is_allowed_and_ends_with_the_process(rig: Rig) -> None:
    rig.create("a", "exit", "4")
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(rig.wait("a")))
    thread.start()
    rig.call("Start", task_pb2.StartRequest(id="a"))
    thread.join()
    assert answers == [4]


def test_wait_respects_its_deadline(rig: Rig) -> None:
    rig.run("a")
    with pytest.raises(DeadlineExceeded):
        rig.call("Wait", task_pb2.WaitRequest(id="a"), timeout=0.01)


def test_unknown_ids_are_not_found(rig: Rig) -> None:
    rig.run("a")
    for container_id, exec_id in (("x", ""), ("a", "x")):
        for method, request in (
            ("State", task_pb2.StateRequest(id=container_id, exec_id=exec_id)),
            ("Wait", task_pb2.WaitRequest(id=container_id, exec_id=exec_id)),
            ("Delete", task_pb2.DeleteRequest(id=container_id, exec_id=exec_id)),
            ("Kill", task_pb2.KillRequest(id=container_id, exec_id=exec_id, signal=9)),
            ("Start", task_pb2.StartRequest(id=container_id, exec_id=exec_id)),
            ("ResizePty", task_pb2.ResizePtyRequest(id=container_id, exec_id=exec_id)),
            ("CloseIO", task_pb2.CloseIORequest(id=container_id, exec_id=exec_id, stdin=True)),
        ):
            with pytest.raises(NotFound):
                rig.call(method, request)
    with pytest.raises(NotFound):
        rig.call("Stats", task_pb2.StatsRequest(id="x"))
    with pytest.raises(NotFound):
        rig.call("Pids", task_pb2.PidsRequest(id="x"))


def test_state_repeats_what_create_said(rig: Rig, tmp_path: object) -> None:
    rig.create("a", "sleep", terminal=True)
    state = rig.call("State", task_pb2.StateRequest(id="a"))
    assert (state.id, state.bundle, state.pid, state.terminal) == ("a", f"{tmp_path}/a", 4242, True)
    assert not state.HasField("exited_at")


def test_pids_are_inits_as_containerd_knows_it_and_the_execs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PIDS_TIMEOUT", PATIENCE)
    rig.run("a")
    rig.exec("a", "e", "sleep")
    pid = rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e")).pid
    processes = rig.call("Pids", task_pb2.PidsRequest(id="a")).processes
    assert [process.pid for process in processes] == [4242, pid]
    assert processes[1].info.type_url == "containerd.runc.v1.ProcessDetails"
    assert runc_options_pb2.ProcessDetails.FromString(processes[1].info.value).exec_id == "e"


def test_pids_of_a_stopped_container_still_name_init(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.wait("a")
    assert [process.pid for process in rig.call("Pids", task_pb2.PidsRequest(id="a")).processes] == [4242]


def test_a_hanging_guest_stops_neither_state_nor_connect_nor_pids(rig: Rig) -> None:
    rig.run("a")
    rig.call("Pids", task_pb2.PidsRequest(id="a"))
    rig.group.guest.hang = True
    begin = time.monotonic()
    assert rig.status("a") == "RUNNING"
    assert rig.call("Connect", task_pb2.ConnectRequest(id="a")).task_pid == 4242
    assert [process.pid for process in rig.call("Pids", task_pb2.PidsRequest(id="a")).processes] == [4242]
    assert time.monotonic() - begin < 5  # not the 10 s that each of these calls may take


def test_a_list_of_processes_that_comes_late_is_there_for_whoever_asks_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    answer, asked = rig.group.guest.list_processes, []
    may_answer = threading.Event()

    def late(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        assert may_answer.wait(10)
        return answer(*arguments, **options)

    monkeypatch.setattr(rig.group.guest, "list_processes", late)

    def pids() -> int:
        return len(rig.call("Pids", task_pb2.PidsRequest(id="a")).processes)

    assert [pids(), pids()] == [1, 1]
    eventually(lambda: asked, "the question")
    assert len(asked) == 1  # one at a time
    may_answer.set()
    eventually(lambda: pids() == 2, "the answer")


def test_connect_answers_for_unknown_tasks(rig: Rig) -> None:
    response = rig.call("Connect", task_pb2.ConnectRequest(id="nobody"))
    assert (response.shim_pid, response.task_pid) == (os.getpid(), 0)


@pytest.mark.parametrize("unified", [True, False])
def test_stats_have_the_type_of_the_hosts_cgroup_mode(rig: Rig, unified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "host_is_unified", lambda: unified)
    rig.run("a")
    stats = rig.call("Stats", task_pb2.StatsRequest(id="a")).stats
    if unified:
        assert stats.type_url == "io.containerd.cgroups.v2.Metrics"
        version_2 = cgroups_v2_pb2.Metrics.FromString(stats.value)
        assert (version_2.memory.pgfault, version_2.memory.pgmajfault) == (88, 9)
        assert (version_2.memory.usage, version_2.cpu.usage_usec, version_2.pids.current) == (12345, 77, 2)
    else:
        assert stats.type_url == "io.containerd.cgroups.v1.Metrics"
        version_1 = cgroups_v1_pb2.Metrics.FromString(stats.value)
        memory = version_1.memory
        assert (memory.pg_fault, memory.pg_maj_fault) == (memory.total_pg_fault, memory.total_pg_maj_fault) == (88, 9)
        assert (version_1.memory.usage.usage, version_1.cpu.usage.total) == (12345, 77000)


def test_the_use_of_several_containers_adds_up_and_one_without_a_limit_leaves_none() -> None:
    one = guest_pb2.StatsResponse(memory_usage=5, memory_limit=100, pids_current=1, pids_limit=10, cpu_usage_us=7)
    two = guest_pb2.StatsResponse(memory_usage=6, memory_limit=200, pids_current=2, pids_limit=20, cpu_usage_us=8)
    unlimited = guest_pb2.StatsResponse(memory_usage=1, memory_limit=(1 << 64) - 1, pids_current=1)
    total = metrics.total([one, two])
    assert (total.memory_usage, total.memory_limit, total.pids_limit, total.cpu_usage_us) == (11, 300, 30, 15)
    total = metrics.total([one, unlimited, two])
    assert (total.memory_usage, total.memory_limit, total.pids_current, total.pids_limit) == (12, (1 << 64) - 1, 4, 0)
    assert metrics.total([]) == guest_pb2.StatsResponse()
