# SPDX-License-Identifier: Apache-2.0
"""Nobody reads the shim's log; stdio is a device; a logger dies, blocks, or never says that it is ready."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from parma_shim.api import task_pb2
from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import shim_of
from tests.e2e.situations.conftest import SLEEP, TRUE, Vm

pytestmark = pytest.mark.e2e

PROMPT = 30.0


def fill(fifo: Path) -> None:
    """Until nothing more goes in."""
    descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


def test_a_log_that_nobody_reads_blocks_nothing(own_vm: Vm) -> None:
    client, host, name = own_vm.client, own_vm.host, own_vm.name
    assert host.daemon.process is not None
    client.add_exec(name, "e", SLEEP)
    client.start(name, "e")
    with shim_of(host, name) as shim:
        host.daemon.process.send_signal(signal.SIGSTOP)
        try:
            fill(host.daemon.root / "state/io.containerd.runtime.v2.task/default" / name / "log")
            call = "containerd.task.v3.Task"
            kill = task_pb2.KillRequest(id=name, exec_id="e", signal=9)
            shim.call(call, "Kill", kill, Empty, timeout=PROMPT)
            wait = task_pb2.WaitRequest(id=name, exec_id="e")
            assert shim.call(call, "Wait", wait, task_pb2.WaitResponse, timeout=PROMPT).exit_status == 137
            state = task_pb2.StateRequest(id=name)
            assert shim.call(call, "State", state, task_pb2.StateResponse, timeout=PROMPT).pid > 0
        finally:
            host.daemon.process.send_signal(signal.SIGCONT)
    assert client.delete(name, "e") == 137
    host.remove(name)


def test_a_device_as_stdio_stays_what_it_is(vm: Vm) -> None:
    before = os.stat("/dev/null")  # noqa: PTH116 - the whole of it
    exec_id = vm.fresh()
    vm.client.add_exec(vm.name, exec_id, TRUE, stdin="/dev/null", stdout="/dev/null")
    vm.client.start(vm.name, exec_id)
    assert vm.client.wait(vm.name, exec_id) == 0
    assert vm.client.delete(vm.name, exec_id) == 0
    after = os.stat("/dev/null")  # noqa: PTH116
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)


LOGGERS = {
    "dies before it is ready": "exit 1",
    "dies later": "exec 5>&-; exit 0",
    "reads nothing": "exec 5>&-; exec sleep 600",
    "is never ready": "exec sleep 600",
}
"""What it does; descriptor 5 is where it would say that it is ready."""


@pytest.mark.parametrize("fault", LOGGERS)
def test_a_logger_that_breaks_stops_nothing_but_the_log(vm: Vm, tmp_path: Path, fault: str) -> None:
    logger = tmp_path / "logger"
    logger.write_text(f"#!/bin/sh\n{LOGGERS[fault]}\n")
    logger.chmod(0o755)
    name = vm.fresh()
    vm.add(name)
    request = pb.CreateTaskRequest(container_id=name, stdout=f"binary://{logger}", stderr=f"binary://{logger}")
    began = time.monotonic()
    created = vm.client.send("Create", request, pb.CreateTaskResponse, timeout=60)
    if created.code().name == "OK":
        vm.client.start(name)
        assert vm.host.exec(name, f"e-{name}", *TRUE).returncode == 0
        vm.client.kill(name, signal.SIGKILL)
        assert vm.client.wait(name) == 137
        assert vm.client.delete(name) == 137
    else:
        # A logger that is not there is an error of whoever asked for it, and in time.
        assert fault in {"dies before it is ready", "is never ready"}
        assert time.monotonic() - began < PROMPT
    vm.host.remove(name)
    assert vm.host.exec(vm.name, vm.fresh(), *TRUE).returncode == 0
