# SPDX-License-Identifier: Apache-2.0
"""Traps of pods, as containerd makes them of tasks: a container that starts again, a pod on the host's network.

What only containerd's sandbox API has is in the tests of that.
"""

from __future__ import annotations

import signal

import pytest

from tests.e2e.crashes import pids, qemu
from tests.e2e.host import Host
from tests.e2e.situations.conftest import SLEEP, TRUE, Vm

pytestmark = pytest.mark.e2e


def test_a_container_of_a_live_pod_starts_again_under_its_name(vm: Vm) -> None:
    (machine,) = pids(vm.host, f"parma-default-{vm.name}")
    name = vm.fresh()
    vm.add(name)
    for round_ in range(3):
        vm.client.create(name)
        vm.client.start(name)
        assert vm.host.exec(name, f"e{round_}", *TRUE).returncode == 0
        vm.client.kill(name, signal.SIGKILL)
        assert vm.client.wait(name) == 137
        assert vm.client.delete(name) == 137
    vm.host.remove(name)
    # The pod's last other container has gone, and the pod lives on.
    assert vm.host.exec(vm.name, vm.fresh(), *TRUE).returncode == 0
    assert pids(vm.host, f"parma-default-{vm.name}") == [machine]


def test_the_hosts_network_is_refused_before_anything_is_started(own_host: Host, name: str) -> None:
    pod = ("--annotation", f"io.kubernetes.cri.sandbox-id={name}")
    kind = ("--annotation", "io.kubernetes.cri.container-type=sandbox")
    for flags in ((), pod, (*pod, *kind)):
        done = own_host.run(name, SLEEP, "--net-host", *flags)
        assert done.returncode != 0
        assert "host's network" in done.stderr
        assert qemu(own_host) == []
        own_host.remove(name)
