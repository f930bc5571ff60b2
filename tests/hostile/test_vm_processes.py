# SPDX-License-Identifier: Apache-2.0
"""Rows about processes in a booted guest: whose numbers and whose /proc count, what is in an environment, which ids."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, Denied, ParmaError
from tests.guest import vm_harness as vm
from tests.hostile.stage import ADMIN, SLEEP, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ADMINS_EFFECTIVE = "00000000a82425fb"
"""`ADMIN` as the kernel shows it: linux/capability.h."""


def test_R14_what_a_container_puts_over_its_proc_deceives_nobody(stage: Stage) -> None:
    with stage.container(capabilities=ADMIN) as name:
        assert stage.run(name, "lie", capabilities=ADMIN) == ["made"]
        with pytest.raises(Denied):
            stage.start_exec(name, "truth")  # its capabilities are still those of the policy
        capabilities, *processes = stage.run(name, "truth", capabilities=ADMIN)
        assert capabilities.split() == ["CapEff:", ADMINS_EFFECTIVE]
        assert processes[0] == "sleep"
        assert set(processes) <= {"sleep", "sh", "cat"}
        rows = stage.guest.call("ListProcesses", pb.ListProcessesRequest(container_id=name)).processes
        assert len(rows) == 1


def test_R14_a_process_for_a_container_that_ends_is_never_one_of_another(stage: Stage) -> None:
    with stage.container() as other:
        assert stage.run(other, "write-layer") == ["changed"]
        assert stage.run(other, "numbers") == ["4194304"]  # the kernel's most: it takes as many forks to meet one again
        storm = stage.start_exec(other, "storm")
        for number in range(6):
            with stage.container() as name:
                refused: list[ParmaError] = []
                entered = threading.Thread(target=enter, args=(stage, name, refused))
                entered.start()
                if number % 2:
                    entered.join()
                with suppress(ParmaError):
                    stage.signal(name)
                entered.join()
                if not refused:
                    assert stage.guest.read_all(name, exec_id="whose") in (b"base\n", b"")
                    stage.guest.wait(name, "whose")
        stage.signal(other, exec_id=storm)
        stage.guest.wait(other, storm)


def enter(stage: Stage, name: str, refused: list[ParmaError]) -> None:
    """Asks for a process of the container that says which layer it sees."""
    try:
        stage.start_exec(name, "whose", "whose")
    except ParmaError as error:
        refused.append(error)


def test_R31_an_expression_for_any_variable_lets_none_in_that_loads_code(stage: Stage) -> None:
    name = stage.new_id()
    stage.make_rootfs(name, "base")
    for variable in ("LD_PRELOAD=/x.so", "LD_AUDIT=/x.so", "PYTHONPATH=/x", "BASH_ENV=/x", "NODE_OPTIONS=-r/x"):
        with pytest.raises(Denied, match="env"):
            stage.guest.create(SLEEP, name, capabilities=ADMIN, env=[vm.PATH_VARIABLE, variable])
    stage.guest.create(SLEEP, name, capabilities=ADMIN, env=[vm.PATH_VARIABLE, "ANY_OTHER=x"])
    stage.remove(name)


def test_R36_an_id_that_was_used_is_never_another_container(stage: Stage) -> None:
    with stage.container() as name:
        assert stage.run(name, "hello") == ["hello"]
    stage.guest.call("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20))
    with suppress(ParmaError):  # either may be where it ends
        stage.guest.call(
            "MountOverlay", pb.MountOverlayRequest(container_id=name, layer_targets=[stage.target("base")])
        )
    with pytest.raises((AlreadyExists, Denied)):
        stage.guest.create(SLEEP, name)
    with suppress(ParmaError):
        stage.guest.call("UnmountOverlay", pb.UnmountOverlayRequest(container_id=name))
    stage.guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=name))
