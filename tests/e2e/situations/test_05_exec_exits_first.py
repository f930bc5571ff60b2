# SPDX-License-Identifier: Apache-2.0
"""The end of a container's first process, and those of its execs, which must be told before."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.client import Events
from tests.e2e.host import wait_until
from tests.e2e.situations.conftest import ORPHANS, SLEEP, Vm

pytestmark = pytest.mark.e2e

SOON = 5.0
"""Seconds from init's end to its announcement, on a machine that is busy with other tests; CRI waits 10."""


def test_execs_that_are_left_when_init_dies_are_ended_and_announced_before_it(vm: Vm) -> None:
    events = Events(vm.client)
    name = vm.begin()
    for exec_id in ("e1", "e2"):
        vm.client.add_exec(name, exec_id, SLEEP)
        vm.client.start(name, exec_id)
    vm.client.kill(name, signal.SIGKILL)
    began = time.monotonic()
    wait_until(lambda: len(events.exits(name)) == 3, "the exits")
    assert time.monotonic() - began < SOON
    assert dict(events.exits(name)) == {"e1": 137, "e2": 137, name: 137}
    assert events.exits(name)[-1][0] == name
    assert vm.client.delete(name) == 137
    vm.host.remove(name)


def test_a_grandchild_that_holds_the_output_does_not_hold_up_the_exit(vm: Vm, tmp_path: Path) -> None:
    name, fifo = vm.begin(), tmp_path / "out"
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    vm.client.add_exec(name, "e", ORPHANS, stdout=str(fifo))
    began = time.monotonic()
    vm.client.start(name, "e")
    assert vm.client.wait(name, "e") == 0
    assert time.monotonic() - began < SOON
    assert vm.client.delete(name, "e") == 0
    reader.join(SOON)
    assert found == [b"left\n"]
    vm.client.kill(name, signal.SIGKILL)
    assert vm.client.wait(name) == 137
    vm.host.remove(name)
