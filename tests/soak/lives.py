# SPDX-License-Identifier: Apache-2.0
"""Lives of containers: in the VM of a pod that goes on, and of whole VMs; orderly ones, and ones that are cut short."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e import tasks_pb2 as pb
from tests.e2e.client import GONE, Containerd, code_of
from tests.e2e.crashes import SLEEP, TRAPPED, kill_all, qemu, shim
from tests.e2e.host import Host, wait_until

TRUE = ("/bin/true",)
LOOK = ("/bin/sh", "-c", "ls /sys/class/block; grep MemAvailable /proc/meminfo")
"""What the guest's kernel has, for all to see."""

KILLED = 137
TRAP = 21
"""The exit code of a container that ends at SIGTERM."""

IMPATIENT = 0.3
"""Seconds after which a client gives up a Create that takes longer."""


class Pod:
    """A pod whose first container stays, and further ones that come and go in its VM."""

    def __init__(self, host: Host, client: Containerd, name: str) -> None:
        self.host = host
        self.client = client
        self.name = name
        self.policy = host.policy(TRAPPED, execs=[TRUE, SLEEP, LOOK])
        self._flags = ("--annotation", f"io.kubernetes.cri.sandbox-id={name}")
        self._numbers = itertools.count()
        self.begin(name)

    def remove(self) -> None:
        self.host.remove(self.name)

    def begin(self, name: str) -> None:
        """A container that runs."""
        self.client.new_container(name, TRAPPED, *self._flags, policy=self.policy)
        self.client.create(name)
        self.client.start(name)

    def guest(self) -> tuple[list[str], int]:
        """The guest's block devices, and the KiB of memory that are free in it."""
        *devices, memory = self.host.exec(self.name, f"look{next(self._numbers)}", *LOOK).stdout.splitlines()
        return devices, int(memory.split()[1])

    # Lives. Each takes a name and leaves nothing of it.

    def orderly(self, name: str) -> None:
        """Create, start, exec, stop, delete."""
        self.begin(name)
        self.exec(name, "e", TRUE)
        stop(self.client, name)
        assert self.client.delete(name) == TRAP
        self.host.remove(name)

    def killed_with_an_exec(self, name: str) -> None:
        """kill -9 while an exec runs."""
        self.begin(name)
        self.client.add_exec(name, "e", SLEEP)
        self.client.start(name, "e")
        self.client.kill(name, signal.SIGKILL)
        assert self.client.wait(name) == KILLED
        assert self.client.delete(name) == KILLED
        self.host.remove(name)

    def killed_exec(self, name: str) -> None:
        """kill -9 of the exec; the container ends in order."""
        self.begin(name)
        self.client.add_exec(name, "e", SLEEP)
        self.client.start(name, "e")
        self.client.kill(name, signal.SIGKILL, "e")
        assert self.client.wait(name, "e") == KILLED
        assert self.client.delete(name, "e") == KILLED
        stop(self.client, name)
        assert self.client.delete(name) == TRAP
        self.host.remove(name)

    def never_started(self, name: str) -> None:
        """Created, with an exec that is not started either, and deleted."""
        self.client.new_container(name, TRAPPED, *self._flags, policy=self.policy)
        self.client.create(name)
        self.client.add_exec(name, "e", SLEEP)
        assert self.client.delete(name) == 0
        self.host.remove(name)

    def client_killed(self, name: str) -> None:
        """kill -9 of the ``ctr run`` that holds its stdin and reads its stdout."""
        arguments = self.host.run_arguments(name, TRAPPED, *self._flags, policy=self.policy)
        with self.host.daemon.popen(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            wait_until(lambda: self.client.state(name) == "RUNNING", f"{name} to run")
            process.kill()
        self.client.kill(name, signal.SIGKILL)
        assert self.client.wait(name) == KILLED
        self.host.remove(name)

    def given_up(self, name: str) -> None:
        """A client that does not wait for the end of Create."""
        name = f"{name}-{next(self._numbers)}"  # containerd may keep the name for as long as Create is being undone
        self.client.new_container(name, TRAPPED, *self._flags, policy=self.policy)
        request = pb.CreateTaskRequest(container_id=name)
        assert code_of(self.client.send("Create", request, pb.CreateTaskResponse, timeout=IMPATIENT)) != "OK"
        wait_until(lambda: self.client.state(name) == GONE, f"{name} to be gone")
        self.host.remove(name)

    def containerd_killed(self, name: str) -> None:
        """kill -9 of containerd while the container and an exec run, which notice nothing."""
        self.begin(name)
        self.client.add_exec(name, "e", SLEEP)
        self.client.start(name, "e")
        restart(self.host, self.client)
        assert self.client.state(name, "e") == "RUNNING"
        stop(self.client, name)
        assert self.client.delete(name) == TRAP
        self.host.remove(name)

    def exec(self, name: str, exec_id: str, args: Sequence[str], like: dict[str, Any] | None = None) -> None:
        """An exec from its beginning to its end."""
        self.client.add_exec(name, exec_id, tuple(args), like=like)
        self.client.start(name, exec_id)
        assert self.client.wait(name, exec_id) == 0
        assert self.client.delete(name, exec_id) == 0


def stop(client: Containerd, name: str) -> None:
    """By SIGTERM, which has no effect before the container's shell has set its trap: its VM stays until Delete."""

    def stopped() -> bool:
        client.sending_kill(name, signal.SIGTERM).code()
        return client.state(name) in ("STOPPED", GONE)

    wait_until(stopped, f"{name} to stop")


QUIET: tuple[Callable[[Pod, str], None], ...] = (
    Pod.orderly,
    Pod.killed_with_an_exec,
    Pod.killed_exec,
    Pod.never_started,
    Pod.client_killed,
    Pod.given_up,
)
"""Lives that can go on at the same time as others."""


def storm(pods: Sequence[Pod], count: int) -> None:
    """So many containers at the same time: all are created and started, then all killed and removed."""
    names = [(pods[number % len(pods)], f"storm{number}") for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda one: one[0].begin(one[1]), names))
        list(pool.map(lambda one: _end(*one), names))
    for pod in pods:  # whose end would have been theirs, too
        assert pod.client.state(pod.name) == "RUNNING", pod.name


def _end(pod: Pod, name: str) -> None:
    pod.client.kill(name, signal.SIGKILL)
    assert pod.client.wait(name) == KILLED
    assert pod.client.delete(name) == KILLED
    pod.host.remove(name)


def execs(pod: Pod, numbers: Iterable[int], at_once: int) -> None:
    """An exec for each number in the pod's first container."""
    process = pod.client.process(pod.name)
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda number: pod.exec(pod.name, f"e{number}", TRUE, process), numbers))


def restart(host: Host, client: Containerd) -> None:
    """kill -9 of containerd, and another one."""
    host.daemon.kill()
    host.daemon.start()
    client.reconnect()


VICTIMS = ("nobody", "qemu", "shim", "containerd")
MOMENTS = ("booting", "created", "running", "stopped")


def vm_life(host: Host, client: Containerd, name: str, victim: str, moment: str) -> None:
    """One container and its VM, with kill -9 of the victim at the moment; then both are removed."""

    def strike(now: str) -> None:
        if now != moment or victim == "nobody":
            return
        if victim == "containerd":
            restart(host, client)
        else:
            kill_all({"qemu": qemu, "shim": shim}[victim](host))

    client.new_container(name, TRAPPED, policy=host.policy(TRAPPED, execs=[TRUE, SLEEP, LOOK]))
    creating = client.sending_create(name)
    wait_until(lambda: bool(qemu(host)), "the VM to boot")
    strike("booting")
    if code_of(creating) == "OK":
        strike("created")
        started = client.sending_start(name)
        if code_of(started) == "OK":
            client.add_exec(name, "e", SLEEP)
            client.start(name, "e")
            strike("running")
            stop(client, name)
            strike("stopped")
    host.remove(name)
