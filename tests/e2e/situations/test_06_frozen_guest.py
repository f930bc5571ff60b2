# SPDX-License-Identifier: Apache-2.0
"""A guest that answers nothing: what needs no answer of it does not wait, and SIGKILL ends it within a bound."""

from __future__ import annotations

import signal
import time

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from parma_shim.api import task_pb2
from tests.e2e.client import GONE, shim_of
from tests.e2e.crashes import qemu, signal_all
from tests.e2e.host import wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.e2e.situations.conftest import SLEEP, Vm

pytestmark = pytest.mark.e2e

QUICK = 0.1
"""Seconds that the shim has for what it knows by itself; the median of several, as the machine is busy."""

KILL = 15.0
"""Seconds until SIGKILL of a container has ended a machine that does not answer (the shim waits 5)."""


def test_state_pids_and_connect_answer_at_once_and_kill_ends_the_machine(own_vm: Vm) -> None:
    host, client, name = own_vm.host, own_vm.client, own_vm.name
    before = Inventory.take(host)
    client.add_exec(name, "e", SLEEP)
    signal_all(qemu(host), signal.SIGSTOP)
    starting = client.sending_start(name, "e")  # hangs
    questions: dict[str, tuple[Message, type[Message]]] = {
        "State": (task_pb2.StateRequest(id=name), task_pb2.StateResponse),
        "Pids": (task_pb2.PidsRequest(id=name), task_pb2.PidsResponse),
        "Connect": (task_pb2.ConnectRequest(id=name), task_pb2.ConnectResponse),
    }
    with shim_of(host, name) as shim:
        for method, (request, answer) in questions.items():
            took = []
            for _ in range(5):
                began = time.monotonic()
                shim.call("containerd.task.v3.Task", method, request, answer, timeout=10)
                took.append(time.monotonic() - began)
            # What Pids asks the guest it gives up after 90 ms.
            assert sorted(took)[2] < QUICK + 0.1, (method, took)
        assert host.status(name) == "RUNNING"
        began = time.monotonic()
        shim.call("containerd.task.v3.Task", "Kill", task_pb2.KillRequest(id=name, signal=9), Empty, timeout=KILL)
    assert client.wait(name) == 137
    assert time.monotonic() - began < KILL
    assert starting.code().name != "OK"
    assert client.delete(name) == 137
    host.remove(name)
    wait_until(lambda: client.state(name) == GONE, "the task to be gone")
    assert_nothing_left(host, before)
    wait_until(lambda: not Inventory.take(host).processes, "the shim to end")
