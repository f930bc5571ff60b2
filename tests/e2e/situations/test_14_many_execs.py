# SPDX-License-Identifier: Apache-2.0
"""Many execs, many at once, and execs whose caller does not wait for their end. The long form: `./dev soak`."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import GONE
from tests.e2e.crashes import pids, resident_kib
from tests.e2e.host import wait_until
from tests.e2e.situations.conftest import SLEEP, TRUE, Vm

pytestmark = pytest.mark.e2e

EXECS = 60
AT_ONCE = 12
GROWTH_KIB = 2048


def shim_of(vm: Vm) -> int:
    """A helper of its own bears its name until it has become another program."""
    found: list[int] = []

    def alone() -> bool:
        found[:] = [pid for pid in pids(vm.host, f"-id\0{vm.name}\0") if "qemu" not in command(pid)]
        return len(found) == 1

    wait_until(alone, "one shim to be there")
    return found[0]


GONE_MEANWHILE = "gone"


def command(pid: int) -> str:
    """Empty for a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError):
        return GONE_MEANWHILE


def zombies(pid: int) -> list[int]:
    """Children that nobody has waited for."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if not command(child)]


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_many_execs_leave_no_descriptor_no_memory_and_no_zombie(vm: Vm) -> None:
    def run(_: int) -> None:
        exec_id = vm.fresh()
        vm.client.add_exec(vm.name, exec_id, TRUE)
        vm.client.start(vm.name, exec_id)
        assert vm.client.wait(vm.name, exec_id) == 0
        assert vm.client.delete(vm.name, exec_id) == 0
        assert vm.client.state(vm.name, exec_id) == GONE

    pid = shim_of(vm)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(AT_ONCE)))  # as many threads and connections as there will be
        before, open_before = resident_kib(pid), descriptors(pid)
        list(pool.map(run, range(EXECS)))
    wait_until(lambda: descriptors(pid) <= open_before, "the connections to close")
    # What is free goes back to the system when the shim next looks for it.
    wait_until(lambda: resident_kib(pid) < before + GROWTH_KIB, "the shim to be as small as before")
    wait_until(lambda: not zombies(pid), "every child to be waited for")


def test_an_exec_that_takes_too_long_is_killed_in_the_guest_and_deleted(vm: Vm) -> None:
    exec_id = vm.fresh()
    arguments = ("task", "exec", "--exec-id", exec_id, vm.name, *SLEEP)
    with vm.host.daemon.popen(*arguments, stdin=subprocess.DEVNULL) as probe:
        wait_until(lambda: vm.client.state(vm.name, exec_id) == "RUNNING", "the exec to run")
        probe.kill()
    vm.client.kill(vm.name, 9, exec_id)
    assert vm.client.wait(vm.name, exec_id) == 137
    assert vm.client.delete(vm.name, exec_id) == 137
    listed = vm.client.send("ListPids", pb.ListPidsRequest(container_id=vm.name), pb.ListPidsResponse).result()
    # The container's shell and its `sleep`; nothing of an exec.
    assert [process.info.type_url for process in listed.processes if process.HasField("info")] == []
