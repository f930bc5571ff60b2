# SPDX-License-Identifier: Apache-2.0
"""containerd is upgraded and downgraded beneath running containers; a shim's leftovers are of another version."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.client import GONE
from tests.e2e.crashes import lone_shim, qemu
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory
from tests.e2e.situations.conftest import TRUE, Vm

pytestmark = pytest.mark.e2e

OTHER = {"1.7": "2.1", "2.1": "1.7"}


@pytest.mark.parametrize("first", OTHER)
def test_a_container_outlives_the_change_to_another_containerd(first: str, archives: dict[str, Path]) -> None:
    with PrivateContainerd(paths.PREFIX / f"containerd-{first}") as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        vm = Vm(Host(daemon, archives), "pod")
        daemon.stop()
        daemon.binaries = paths.PREFIX / f"containerd-{OTHER[first]}"
        daemon.start()
        vm.client.reconnect()
        assert vm.client.state(vm.name) == "RUNNING"
        assert vm.host.exec(vm.name, "e", *TRUE).returncode == 0
        member = vm.begin()  # joins the VM that the other version's shim has made
        assert len(qemu(vm.host)) == 1
        for name in (member, vm.name):
            vm.client.kill(name, signal.SIGKILL)
            assert vm.client.wait(name) == 137
            assert vm.client.delete(name) == 137
            vm.host.remove(name)
        vm.client.close()
        wait_until(lambda: not Inventory.take(vm.host).processes, "all to end")


def test_what_a_shim_of_another_version_left_is_undone(own_vm: Vm) -> None:
    host = own_vm.host
    state = host.daemon.root / "state/io.containerd.runtime.v2.task/default" / own_vm.name / "parma.state"
    host.daemon.kill()
    lines = [line for line in state.read_text().splitlines() if not line.startswith("format=")]
    state.write_text("\n".join(["format=7", "colour=green", *lines]) + "\n")
    os.kill(lone_shim(host), signal.SIGKILL)
    host.daemon.start()
    own_vm.client.reconnect()
    wait_until(lambda: own_vm.client.state(own_vm.name) == GONE, "containerd to notice")
    host.remove(own_vm.name)
    wait_until(lambda: not Inventory.take(host).processes, "all to end")
    assert list(host.state.glob("*/")) == []
