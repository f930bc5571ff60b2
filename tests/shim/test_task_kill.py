# SPDX-License-Identifier: Apache-2.0
"""Kill: signals, and the end of the machine where a guest stands in the way. Over a fake guest."""

from __future__ import annotations

from typing import Any

import pytest

from parma_shim.api import task_pb2
from parma_shim.task import exits, service
from parma_shim.task.process import guest_container_id
from parma_wire.errors import (
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from tests.shim.support import Rig


class Unread:
    """Streams whose reader does not come."""

    def stop_input(self) -> None:
        pass

    def drain(self, timeout: float) -> bool:
        assert timeout > 0
        return False

    def close(self) -> None:
        pass


def test_kill_of_a_created_container_produces_an_exit(rig: Rig) -> None:
    rig.create("a")
    rig.kill("a")
    assert rig.wait("a") == 137
    assert rig.topics() == ["/tasks/create a", "/tasks/exit a"]


def test_kill_after_the_exit_says_not_found(rig: Rig) -> None:
    rig.run("a", "exit", "0")
    rig.wait("a")
    with pytest.raises(NotFound, match="process already finished"):
        rig.kill("a")


def test_kill_all_concerns_every_process(rig: Rig) -> None:
    rig.run("a")
    rig.kill("a", all=True)
    assert "signal 9 all" in rig.group.guest.calls


def test_a_signal_that_the_policy_forbids_is_denied(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    with pytest.raises(Denied):
        rig.kill("a", 10)
    assert rig.status("a") == "RUNNING"


def test_sigkill_of_the_only_container_ends_the_machine_whatever_the_policy_says(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    rig.kill("a")
    assert rig.wait("a") == 137


@pytest.mark.usefixtures("complete_output")
def test_the_process_that_containerd_knows_is_gone_when_the_only_container_was_killed(rig: Rig) -> None:
    rig.run("a")
    rig.kill("a")
    assert rig.wait("a") == 137
    assert not rig.group.guest.alive
    assert rig.delete("a").exit_status == 137


def test_an_exit_of_its_own_before_the_kill_arrived_keeps_its_status(rig: Rig) -> None:
    rig.run("a")
    process = rig.group.guest.process(guest_container_id("default", "a"))
    signal = rig.group.guest.signal_process

    def late(*arguments: Any, **options: Any) -> None:
        process.exit(3)
        signal(*arguments, **options)

    rig.group.guest.signal_process = late  # type: ignore[method-assign]
    with pytest.raises(NotFound):
        rig.kill("a")
    assert rig.wait("a") == 3


def test_a_killed_container_leaves_the_machine_to_the_others(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.kill("a")
    assert rig.wait("a") == 137
    assert rig.group.guest.alive
    assert rig.status("b") == "RUNNING"


def test_output_that_nobody_reads_yet_keeps_the_machine_of_a_killed_container(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "DRAIN", 0.05)
    rig.run("a")
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.holds_output_open = True
    rig.env.tasks.find("a").io = Unread()  # type: ignore[assignment]
    rig.kill("a")
    assert rig.wait("a") == 137
    assert rig.group.guest.alive


def test_sigkill_ends_the_machine_of_a_guest_that_takes_no_more_changes(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.refuse_signals = FailedPrecondition("the container group takes no more changes")
    with pytest.raises(FailedPrecondition):
        rig.kill("a", 15)
    rig.kill("a")
    assert rig.wait("a") == 137


def test_sigkill_of_one_of_two_containers_can_be_denied(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.refuse_signals = Denied("signal not allowed")
    with pytest.raises(Denied):
        rig.kill("a")
    assert not rig.group.killed


def test_sigkill_ends_the_machine_of_a_hanging_guest(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.hang = True
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9), timeout=0.05)
    assert rig.wait("a") == 137


def test_a_guest_that_hangs_ends_whoever_else_lives_in_it(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.hang = True
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9), timeout=0.05)
    assert (rig.wait("a"), rig.wait("b")) == (137, 137)


def test_a_guest_that_is_busy_sends_sigkill_in_its_turn_and_keeps_the_others(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.group.guest.busy = True
    rig.kill("a")
    assert rig.wait("a") == 137
    assert rig.group.guest.alive
    assert rig.status("b") == "RUNNING"


def test_a_guest_that_answers_for_ever_and_does_not_send_sigkill_is_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "KILL_TIMEOUT", 0.01)
    monkeypatch.setattr(service, "BUSY", 0.1)
    rig.run("a")
    rig.run("b")
    rig.group.guest.refuse_signals = DeadlineExceeded("the guest did not answer SignalProcess in time")
    rig.kill("a")
    assert (rig.wait("a"), rig.wait("b")) == (137, 137)
    assert "answers" in rig.group.guest.calls


def test_another_signal_to_a_hanging_guest_fails(rig: Rig) -> None:
    rig.run("a")
    rig.group.guest.hang = True
    with pytest.raises(Unavailable):
        rig.call("Kill", task_pb2.KillRequest(id="a", signal=15), timeout=0.05)
    assert rig.status("a") == "RUNNING"


@pytest.mark.parametrize(("signal", "ends"), [(2, True), (15, True), (9, True), (1, False)])
def test_a_pause_container_ends_by_the_signals_that_it_has_handlers_for(rig: Rig, signal: int, ends: bool) -> None:
    pod = {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "a"}
    namespaces = [{"type": kind} for kind in ("network", "pid", "ipc")]
    rig.create("a", "sleep", annotations=pod, linux={"namespaces": namespaces})
    rig.call("Start", task_pb2.StartRequest(id="a"))
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=signal))
    assert ("stop" in rig.group.guest.calls) is ends
    assert "signal" not in rig.group.guest.calls
    if ends:
        assert rig.call("Wait", task_pb2.WaitRequest(id="a")).exit_status == 137


def test_a_pause_container_that_does_not_end_takes_the_machine_along(rig: Rig) -> None:
    pod = {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "a"}
    namespaces = [{"type": kind} for kind in ("network", "pid", "ipc")]
    rig.create("a", "sleep", annotations=pod, linux={"namespaces": namespaces})
    rig.call("Start", task_pb2.StartRequest(id="a"))
    rig.group.guest.alive = False
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9))
    assert rig.group.killed
