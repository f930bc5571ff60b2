# SPDX-License-Identifier: Apache-2.0
"""The guest runs but cannot be reached: every request ends, and Kill and Delete do not need it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import code_of
from tests.e2e.crashes import pids, qemu, signal_all
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.e2e.situations.conftest import SLEEP, Vm

pytestmark = pytest.mark.e2e

CALL_TIMEOUT = 5
BOUND = 20.0


@pytest.fixture
def hasty_vm(archives: dict[str, Path]) -> Iterator[Vm]:
    """One whose guest gets little time for each request, once it has booted."""
    settings = {"call_timeout": CALL_TIMEOUT, "scratch_mib": 64}
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config=settings) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        made = Vm(Host(daemon, archives), "pod")
        yield made
        made.client.close()


def vsock_device(host: Host) -> list[int]:
    found = pids(host, "vhost-device-vsock")
    if not found:
        pytest.skip("this host's kernel has vsock by itself: there is no device to stop")
    return [pid for pid in found if pid not in qemu(host)]


def test_a_guest_behind_a_stopped_vsock_can_be_killed_and_deleted(hasty_vm: Vm) -> None:
    host, client, name = hasty_vm.host, hasty_vm.client, hasty_vm.name
    before = Inventory.take(host)
    signal_all(vsock_device(host), signal.SIGSTOP)
    client.add_exec(name, "e", SLEEP)
    began = time.monotonic()
    assert code_of(client.sending_start(name, "e")) != "OK"
    assert host.status(name) == "RUNNING"
    client.kill(name, signal.SIGKILL)
    assert client.wait(name) == 137
    assert client.delete(name) == 137
    assert time.monotonic() - began < CALL_TIMEOUT + BOUND
    host.remove(name)
    assert_nothing_left(host, before)
    wait_until(lambda: not Inventory.take(host).processes, "all to end")


def test_death_of_the_vsock_is_death_of_the_machine(own_vm: Vm) -> None:
    signal_all(vsock_device(own_vm.host), signal.SIGKILL)
    assert own_vm.client.wait(own_vm.name) == 137
    assert own_vm.client.delete(own_vm.name) == 137
    own_vm.host.remove(own_vm.name)
    wait_until(lambda: not Inventory.take(own_vm.host).processes, "all to end")
