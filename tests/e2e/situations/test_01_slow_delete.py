# SPDX-License-Identifier: Apache-2.0
"""Delete takes longer than its caller waits: it goes on, and whoever asks again learns the same."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import code_of
from tests.e2e.crashes import qemu, signal_all
from tests.e2e.host import wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.e2e.situations.conftest import Vm

pytestmark = pytest.mark.e2e

IMPATIENT = 1.0
BOUND = 60.0
"""Seconds: the time that a request to the guest has (30), and some."""


def test_a_delete_that_was_given_up_goes_on_and_a_second_one_learns_the_status(own_vm: Vm) -> None:
    before = Inventory.take(own_vm.host)
    client, name = own_vm.client, own_vm.begin()
    client.kill(name, signal.SIGKILL)
    assert client.wait(name) == 137
    signal_all(qemu(own_vm.host), signal.SIGSTOP)
    first = client.send("Delete", pb.DeleteTaskRequest(container_id=name), pb.DeleteResponse, timeout=IMPATIENT)
    assert code_of(first) != "OK"
    began = time.monotonic()
    # Each is told that the first is still under way, until one is there when that ends.
    while code_of(again := client.sending_delete(name)) != "OK":
        assert time.monotonic() - began < BOUND
    assert again.result().exit_status == 137
    # Nothing in a machine that does not answer can be trusted to be gone: it ended, and all in it.
    wait_until(lambda: not qemu(own_vm.host), "the VM to end", timeout=BOUND)
    assert client.wait(own_vm.name) == 137
    own_vm.host.remove(name)
    own_vm.host.remove(own_vm.name)
    assert_nothing_left(own_vm.host, before)
