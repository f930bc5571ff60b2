# SPDX-License-Identifier: Apache-2.0
"""Inventories before and after many lives: they must be the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from tests.e2e.client import Containerd
from tests.e2e.host import Host
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.soak import lives
from tests.soak.footprint import PEAK_KIB, Footprint, assert_no_growth, at_rest

GUEST_ALLOWANCE_KIB = 32 << 10
"""Of the guest's memory: caches, and the ids of all containers and execs that ever were; none is taken twice."""


MARK = os.getpid()
"""In the names of VMs: their cgroups are the machine's, and another soak may run beside this one."""

PATIENCE = 1800.0
"""Seconds for a call of a storm: a pod's containers are created one after the other."""

SAMPLES = (1_000, 2_000, 5_000)
"""After so many execs it is said what is held."""


@dataclass(frozen=True)
class Amounts:
    """How much of what."""

    lives: int
    """Of containers in the VM of a pod."""
    deaths_of_containerd: int
    """Among them, kill -9 while a container runs."""
    vms: int
    """Lives of VMs, most of them with kill -9 of QEMU, of the shim or of containerd."""
    storms: int
    at_once: int
    """Containers of each storm."""
    pods: int
    """Into whose VMs a storm comes."""
    execs: int
    execs_at_once: int


SHORT = Amounts(
    lives=24, deaths_of_containerd=1, vms=4, storms=2, at_once=12, pods=1, execs=60, execs_at_once=8
)  # fmt: skip
LONG = Amounts(
    lives=188, deaths_of_containerd=8, vms=13, storms=5, at_once=110, pods=2, execs=10_000, execs_at_once=24
)  # fmt: skip


class Soak:
    """One containerd, and what is done to it."""

    def __init__(self, host: Host, amounts: Amounts, log: Callable[[str], None]) -> None:
        self._host = host
        self._amounts = amounts
        self._log = log
        self._began = time.monotonic()

    def run(self) -> None:
        """Raises AssertionError with what is left or has grown."""
        host, amounts = self._host, self._amounts
        before = Inventory.take(host)
        with closing(Containerd(host, PATIENCE)) as client:
            pods = [lives.Pod(host, client, f"pod{number}-{MARK}") for number in range(amounts.pods)]
            self._say(f"{len(pods)} pods run")
            self._in_pods(pods)
            for pod in pods:
                pod.remove()
            assert_same(host, before)
            self._vms(client)
        assert_same(host, before)
        self._say("nothing is left")

    def _in_pods(self, pods: list[lives.Pod]) -> None:
        host, amounts, pod = self._host, self._amounts, pods[0]
        for one in pods:
            for life in lives.QUIET:  # what is made once, and cached
                life(one, "m")
        pod.containerd_killed("m")
        lives.execs(pod, range(amounts.execs_at_once), amounts.execs_at_once)
        footprint = at_rest(host)
        inventory = Inventory.take(host)  # at rest as well: a helper that was still at work would be missed in the end
        guests = [one.guest() for one in pods]
        self._say(f"warm; {footprint}")
        for number in range(amounts.lives):
            lives.QUIET[number % len(lives.QUIET)](pod, "m")
        self._say(f"{amounts.lives} lives of containers")
        for _ in range(amounts.deaths_of_containerd):
            pod.containerd_killed("m")
        self._say(f"{amounts.deaths_of_containerd} deaths of containerd")
        for number in range(amounts.storms):
            lives.storm(pods, amounts.at_once)
            self._say(f"{amounts.at_once} containers at once; {Footprint.take(host)}")
            if not number:
                assert_no_growth(host, footprint, PEAK_KIB)
                footprint = at_rest(host)
                self._say(f"what the first storm leaves; {footprint}")
        self._execs(pod)
        assert_same(host, inventory)
        self._say(f"as before; {assert_no_growth(host, footprint)}")
        for one, (devices, memory) in zip(pods, guests, strict=True):
            devices_now, memory_now = one.guest()
            assert devices_now == devices
            assert memory_now > memory - GUEST_ALLOWANCE_KIB, (memory_now, memory)
            self._say(f"guest of {one.name}: {len(devices)} devices; {memory} KiB free before, {memory_now} after")

    def _execs(self, pod: lives.Pod) -> None:
        """What grows with every exec shows in the numbers between."""
        amounts, done = self._amounts, 0
        for until in sorted({*(sample for sample in SAMPLES if sample < amounts.execs), amounts.execs}):
            lives.execs(pod, range(done, until), amounts.execs_at_once)
            done = until
            _, memory = pod.guest()
            self._say(
                f"{done} execs, {amounts.execs_at_once} at once; {Footprint.take(self._host)}; guest: {memory} KiB free"
            )

    def _vms(self, client: Containerd) -> None:
        host = self._host
        inventory, footprint = Inventory.take(host), Footprint.take(host)
        fates = [("nobody", "stopped")] + [(v, m) for m in lives.MOMENTS for v in lives.VICTIMS[1:]]
        for number in range(self._amounts.vms):
            victim, moment = fates[(number * 4) % len(fates)]  # 4 and 13 have no common factor: each once
            lives.vm_life(host, client, f"vm-{MARK}", victim, moment)
            assert_same(host, inventory)
            self._say(f"a VM's life, with kill -9 of {victim} when it was {moment}")
        self._say(f"as before; {assert_no_growth(host, footprint)}")

    def _say(self, what: str) -> None:
        self._log(f"{time.monotonic() - self._began:7.1f} s  {what}")


def assert_same(host: Host, before: Inventory) -> None:
    """Nothing is there that was not, and nothing has gone that was."""
    assert_nothing_left(host, before)
    gone = before.since(Inventory.take(host), host)
    assert not gone, gone
