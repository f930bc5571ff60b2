# SPDX-License-Identifier: Apache-2.0
"""Nobody reads the output: that process alone stops, nothing piles up in the shim, and it can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.crashes import lone_shim, resident_kib
from tests.e2e.host import Host, wait_until
from tests.e2e.situations.conftest import YES, Vm

pytestmark = pytest.mark.e2e


def test_an_exec_whose_output_nobody_reads_can_be_killed_and_deleted(vm: Vm, tmp_path: Path) -> None:
    fifo, exec_id = tmp_path / "out", vm.fresh()
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)  # a reader that does not read
    try:
        vm.client.add_exec(vm.name, exec_id, YES, stdout=str(fifo))
        vm.client.start(vm.name, exec_id)
        vm.client.kill(vm.name, signal.SIGKILL, exec_id)
        assert vm.client.wait(vm.name, exec_id) == 137
        assert vm.client.delete(vm.name, exec_id) == 137
    finally:
        os.close(held)


def test_output_that_nobody_reads_stops_only_itself(own_host: Host, name: str) -> None:
    command = ("/bin/yes",)
    policy = own_host.policy(command, execs=[("/bin/echo", "hello")])
    arguments = own_host.run_arguments(name, command, "--rm", policy=policy)
    with own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        wait_until(lambda: own_host.status(name) == "RUNNING", "the container to run")
        pid = lone_shim(own_host)
        assert own_host.exec(name, "e1", "/bin/echo", "hello").stdout == "hello\n"
        before = resident_kib(pid)
        for number in range(5):
            assert own_host.exec(name, f"more{number}", "/bin/echo", "hello").stdout == "hello\n"
        # What is free goes back to the system when the shim next looks for it; what piles up only grows.
        wait_until(lambda: resident_kib(pid) < before + 2048, "the shim to be as small as before")
        assert own_host.daemon.ctr("task", "kill", "--signal", "SIGKILL", name).returncode == 0
        wait_until(lambda: own_host.status(name) != "RUNNING", "the container to end")
        process.kill()
        process.communicate()
    own_host.remove(name)
