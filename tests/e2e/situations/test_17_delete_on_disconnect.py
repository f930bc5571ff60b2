# SPDX-License-Identifier: Apache-2.0
"""containerd runs `delete` on every disconnect: for a container of a pod, and beside a shim that lives."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from parma_shim.api import task_pb2
from tests.e2e.crashes import qemu
from tests.e2e.host import BUSYBOX, Host, wait_until
from tests.e2e.inventory import Inventory
from tests.e2e.situations.conftest import TRUE, Vm

pytestmark = pytest.mark.e2e


def run_delete(vm: Vm, name: str) -> task_pb2.DeleteResponse:
    """As containerd runs it."""
    bundle = vm.host.daemon.root / "state/io.containerd.runtime.v2.task/default" / name
    words = ["-namespace", "default", "-address", str(vm.host.daemon.address), "-id", name]
    done = subprocess.run(
        [vm.host.daemon.root / "bin/containerd-shim-parma-v2", *words, "-bundle", bundle, "delete"],
        cwd=bundle,
        env=vm.host.daemon.environment(),
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return task_pb2.DeleteResponse.FromString(done.stdout)


def test_delete_of_one_container_leaves_the_pod_alone_and_that_of_the_pod_ends_it(own_vm: Vm) -> None:
    member = own_vm.begin()
    assert run_delete(own_vm, member).exit_status == 137
    for name in (own_vm.name, member):
        assert own_vm.host.exec(name, f"e-{name}", *TRUE).returncode == 0
    # The owner's, while its shim lives: containerd has lost the connection, and counts on all being gone after this.
    assert run_delete(own_vm, own_vm.name).exit_status == 137
    assert qemu(own_vm.host) == []
    with suppress(FileNotFoundError):  # containerd has run it as well, and has removed the bundle meanwhile
        assert run_delete(own_vm, own_vm.name).exit_status == 137
    for name in (member, own_vm.name):
        own_vm.host.remove(name)
    wait_until(lambda: not Inventory.take(own_vm.host).processes, "all to end")


def test_containerd_1_7_runs_it_for_each_container_of_a_pod(archives: dict[str, Path]) -> None:
    with PrivateContainerd(paths.PREFIX / "containerd-1.7") as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        vm = Vm(Host(daemon, archives), "pod")
        for _ in range(2):
            member = vm.begin()
            vm.client.kill(member, signal.SIGKILL)
            assert vm.client.wait(member) == 137
            assert vm.client.delete(member) == 137
            vm.host.remove(member)
            assert vm.host.exec(vm.name, vm.fresh(), *TRUE).returncode == 0
        assert len(qemu(vm.host)) == 1
        vm.host.remove(vm.name)
        vm.client.close()
        wait_until(lambda: not Inventory.take(vm.host).processes, "all to end")
