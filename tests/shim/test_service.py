# SPDX-License-Identifier: Apache-2.0
"""The task service: every RPC, its errors and the events, over a fake guest."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from parma_shim.api import cgroups_v1_pb2, cgroups_v2_pb2, runc_options_pb2, task_pb2
from parma_shim.stdio.process import ProcessIO
from parma_shim.task import exits, metrics
from parma_shim.task.process import guest_container_id
from parma_wire import guest_pb2
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    Unavailable,
    Unsupported,
)
from tests.shim.support import Rig, eventually

LIFE = ["/tasks/create a", "/tasks/start a", "/tasks/exit a", "/tasks/delete a"]


def delete(rig: Rig, container_id: str, exec_id: str = "") -> task_pb2.DeleteResponse:
    response: task_pb2.DeleteResponse = rig.call("Delete", task_pb2.DeleteRequest(id=container_id, exec_id=exec_id))
    return response


def kill(rig: Rig, container_id: str, signal: int = 9, **fields: object) -> None:
    rig.call("Kill", task_pb2.KillRequest(id=container_id, signal=signal, **fields))  # type: ignore[arg-type]


def test_a_containers_life_from_create_to_delete(rig: Rig) -> None:
    assert rig.create("a", "exit", "3") == 4242
    assert rig.status("a") == "CREATED"
    assert rig.call("Start", task_pb2.StartRequest(id="a")).pid == 4242
    assert rig.wait("a") == 3
    assert rig.status("a") == "STOPPED"
    before = time.time_ns()
    response = delete(rig, "a")
    assert (response.pid, response.exit_status) == (4242, 3)
    assert 0 < response.exited_at.ToNanoseconds() <= before
    assert rig.topics() == LIFE
    with pytest.raises(NotFound):
        rig.status("a")


def test_the_guest_knows_the_container_by_a_hash_of_namespace_and_id(rig: Rig) -> None:
    rig.create("a b/..", "sleep")
    assert rig.group.created[0].guest_id == guest_container_id("default", "a b/..")
    assert len(rig.group.created[0].guest_id) == 64


def test_create_twice_says_already_exists(rig: Rig) -> None:
    rig.create("a")
    with pytest.raises(AlreadyExists):
        rig.create("a")


def test_a_denied_create_leaves_nothing_and_no_event(rig: Rig) -> None:
    with pytest.raises(Denied, match="invalid command"):
        rig.create("a", "denied")
    assert rig.events == []
    with pytest.raises(NotFound):
        delete(rig, "a")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="a"))
    assert rig.ended.is_set()


def test_a_checkpoint_is_unimplemented_both_ways(rig: Rig) -> None:
    with pytest.raises(Unsupported):
        rig.create("a", checkpoint="/somewhere")
    with pytest.raises(Unsupported):
        rig.call("Checkpoint", task_pb2.CheckpointTaskRequest(id="a"))


def test_what_is_unsupported_in_a_create_is_not_taken_for_an_older_shim(rig: Rig) -> None:
    """containerd 2.x answers Unimplemented with a second try in version 2 of the task API."""
    with pytest.raises(Malformed, match="--net-host"):
        rig.create("a", linux={"namespaces": [{"type": "pid"}]})


def test_a_bundle_without_specification_is_not_found(rig: Rig, tmp_path: object) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        rig.call("Create", task_pb2.CreateTaskRequest(id="a", bundle=str(tmp_path)))


def test_start_twice_is_refused(rig: Rig) -> None:
    rig.run("a")
    with pytest.raises(FailedPrecondition):
        rig.call("Start", task_pb2.StartRequest(id="a"))


def test_the_exit_of_a_short_process_comes_after_its_start(rig: Rig) -> None:
    for number in range(20):
        rig.run(f"c{number}", "exit", "0")
        rig.wait(f"c{number}")
        own = [topic for topic in rig.topics() if topic.endswith(f" c{number}")]
        assert own == [f"/tasks/create c{number}", f"/tasks/start c{number}", f"/tasks/exit c{number}"]


def test_wait_answers_many_and_again_until_delete(rig: Rig) -> None:
    rig.run("a")
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(rig.wait("a"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    kill(rig, "a")
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


def test_kill_of_a_created_container_produces_an_exit(rig: Rig) -> None:
    rig.create("a")
    kill(rig, "a")
    assert rig.wait("a") == 137
    assert rig.topics() == ["/tasks/create a", "/tasks/exit a"]


def test_kill_after_the_exit_says_not_found(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.wait("a")
    with pytest.raises(NotFound, match="process already finished"):
        kill(rig, "a")


def test_kill_all_concerns_every_process(rig: Rig) -> None:
    rig.run("a")
    kill(rig, "a", all=True)
    assert "signal 9 all" in rig.group.guest.calls


def test_a_signal_that_the_policy_forbids_is_denied(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    with pytest.raises(Denied):
        kill(rig, "a", 10)
    assert rig.status("a") == "RUNNING"


def test_sigkill_of_the_only_container_ends_the_machine_whatever_the_policy_says(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    kill(rig, "a")
    assert rig.wait("a") == 137


def test_sigkill_ends_the_machine_of_a_guest_that_takes_no_more_changes(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.refuse_signals = FailedPrecondition("the container group takes no more changes")
    with pytest.raises(FailedPrecondition):
        kill(rig, "a", 15)
    kill(rig, "a")
    assert rig.wait("a") == 137


def test_sigkill_of_one_of_two_containers_can_be_denied(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    with pytest.raises(Denied):
        kill(rig, "a")
    assert not rig.group.killed


def test_a_running_container_cannot_be_deleted(rig: Rig) -> None:
    rig.run("a")
    with pytest.raises(FailedPrecondition):
        delete(rig, "a")


def test_a_created_container_can_be_deleted(rig: Rig) -> None:
    rig.create("a")
    assert delete(rig, "a").exit_status == 0
    assert rig.topics() == ["/tasks/create a", "/tasks/delete a"]


def test_deleting_the_last_container_ends_the_machine_and_one_of_several_does_not(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.run("b", "exit", "0")
    rig.wait("a")
    rig.wait("b")
    delete(rig, "a")
    assert rig.group.deleted == ["a"]
    assert not rig.group.killed
    delete(rig, "b")
    assert rig.group.killed


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


def test_exec_runs_beside_init_and_is_deleted_by_itself(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "exit", "7")
    assert rig.status("a", "e") == "CREATED"
    assert rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e")).pid > 0
    assert rig.wait("a", "e") == 7
    assert delete(rig, "a", "e").exit_status == 7
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
        delete(rig, "a", "e")
    names = [exec_id for _, exec_id in rig.group.guest.processes if exec_id]
    assert len(set(names)) == 3


@pytest.mark.parametrize(("program", "error"), [("missing", NotFound), ("denied", Denied)])
def test_an_exec_that_cannot_start_ends_and_can_be_deleted(rig: Rig, program: str, error: type[Exception]) -> None:
    rig.run("a")
    rig.exec("a", "e", program)
    with pytest.raises(error):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    assert rig.wait("a", "e") == 255
    delete(rig, "a", "e")
    assert [topic for topic in rig.topics() if "exit" in topic] == []


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


def test_an_exec_that_never_started_can_be_deleted_and_not_killed(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "e", "sleep")
    with pytest.raises(FailedPrecondition):
        kill(rig, "a", exec_id="e")
    assert delete(rig, "a", "e").exit_status == 0


def test_exec_in_a_stopped_container_is_refused(rig: Rig) -> None:
    rig.run("a")
    rig.exec("a", "late", "sleep")
    kill(rig, "a")
    rig.wait("a")
    with pytest.raises(FailedPrecondition):
        rig.exec("a", "e", "sleep")
    with pytest.raises(FailedPrecondition):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="late"))


def test_exec_exits_are_reported_before_inits(rig: Rig) -> None:
    rig.run("a")
    for number in range(5):
        rig.exec("a", f"e{number}", "sleep")
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id=f"e{number}"))
    kill(rig, "a")
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
    assert delete(rig, "b").exit_status == 137


def test_an_oom_kill_is_announced_before_the_exit(rig: Rig) -> None:
    rig.run("a")
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.oom_killed = True
    process.exit(137)
    rig.wait("a")
    assert rig.topics()[-2:] == ["/tasks/oom a", "/tasks/exit a"]


def test_pids_are_inits_as_containerd_knows_it_and_the_execs(rig: Rig) -> None:
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
    assert time.monotonic() - begin < 0.5


def test_sigkill_ends_the_machine_of_a_hanging_guest(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.hang = True
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9), timeout=0.05)
    assert rig.wait("a") == 137


def test_another_signal_to_a_hanging_guest_fails(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.hang = True
    with pytest.raises(Unavailable):
        rig.call("Kill", task_pb2.KillRequest(id="a", signal=15), timeout=0.05)
    assert rig.status("a") == "RUNNING"


def test_connect_answers_for_unknown_tasks(rig: Rig) -> None:
    response = rig.call("Connect", task_pb2.ConnectRequest(id="nobody"))
    assert (response.shim_pid, response.task_pid) == (os.getpid(), 0)


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


@pytest.mark.parametrize("unified", [True, False])
def test_stats_have_the_type_of_the_hosts_cgroup_mode(rig: Rig, unified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "host_is_unified", lambda: unified)
    rig.run("a")
    stats = rig.call("Stats", task_pb2.StatsRequest(id="a")).stats
    if unified:
        assert stats.type_url == "io.containerd.cgroups.v2.Metrics"
        version_2 = cgroups_v2_pb2.Metrics.FromString(stats.value)
        assert (version_2.memory.usage, version_2.cpu.usage_usec, version_2.pids.current) == (12345, 77, 2)
    else:
        assert stats.type_url == "io.containerd.cgroups.v1.Metrics"
        version_1 = cgroups_v1_pb2.Metrics.FromString(stats.value)
        assert (version_1.memory.usage.usage, version_1.cpu.usage.total) == (12345, 77000)


def test_shutdown_counts_only_when_nothing_is_left(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.run("b", "exit", "0")
    rig.wait("a")
    rig.wait("b")
    delete(rig, "a")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="a"))
    assert not rig.ended.is_set()
    delete(rig, "b")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="b"))
    assert rig.ended.is_set()
    with pytest.raises(FailedPrecondition, match="shutting down"):
        rig.create("c")


def test_a_create_that_its_client_deletes_is_undone(rig: Rig) -> None:
    def impatient(_spec: object) -> None:
        with pytest.raises(NotFound):
            delete(rig, "a")

    rig.group.on_create = impatient
    with pytest.raises((FailedPrecondition, Unavailable)):
        rig.create("a")
    assert rig.group.killed
    assert rig.events == []
    assert rig.env.tasks.all() == []


def test_a_second_delete_waits_for_the_first_and_gets_the_same_answer(rig: Rig) -> None:
    rig.run("a")
    rig.run("b", "exit", "5")
    rig.wait("b")
    inside, go_on = threading.Event(), threading.Event()

    def slow(_container_id: str) -> None:
        inside.set()
        assert go_on.wait(10)

    rig.group.on_delete = slow
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(delete(rig, "b").exit_status)) for _ in range(2)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert rig.status("b") == "STOPPED"
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == [5, 5]
    assert [topic for topic in rig.topics() if "delete" in topic] == ["/tasks/delete b"]


def test_hundreds_of_execs_leave_nothing_behind(rig: Rig) -> None:
    rig.run("a")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(300):
        rig.exec("a", f"e{number}", "exit", "0")
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id=f"e{number}"))
        rig.wait("a", f"e{number}")
        delete(rig, "a", f"e{number}")
        rig.group.guest.processes.pop((guest_container_id("default", "a"), f"exec-{number + 1}"))
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 4, "descriptors to be closed")
    eventually(lambda: threading.active_count() < 40, "threads to end")
    assert rig.env.tasks.find("a").container.execs == {}


def test_the_status_is_refreshed_after_the_start(rig: Rig) -> None:
    rig.create("a")
    assert rig.group.refreshed == 0
    rig.call("Start", task_pb2.StartRequest(id="a"))
    assert rig.group.refreshed == 1
