# SPDX-License-Identifier: Apache-2.0
"""A pod whose containers are each at another step of their lives, for tests that kill something beneath them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.client import Containerd, Events, code_of
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

TRAPPED = ("/bin/sh", "-c", "trap 'exit 21' TERM; sleep 1000000 & wait")
"""For ever: a soak takes longer than any time that looks long enough here."""
SLEEP = ("/bin/sleep", "1000000")


def pids(host: Host, word: str) -> list[int]:
    """Processes of this daemon's containers whose command line has the word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if word in command and str(host.daemon.root) in command and "ctr\0" not in command:
                found.append(int(entry.name))
    return found


def qemu(host: Host) -> list[int]:
    return pids(host, "qemu-system")


def shim(host: Host) -> list[int]:
    return pids(host, "containerd-shim-parma-v2")


UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")
"""Where the host has cgroups of version 2 alone."""


def cgroups_of(processes: Iterable[int], *, version: int = 2 if UNIFIED.exists() else 1) -> set[str]:
    """Where the host accounts for the memory of these, by that version of its cgroups."""
    found = set()
    for pid in processes:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        paths = {controllers: path for _, controllers, path in lines}
        found.add(paths["" if version == 2 else "memory"])
    return found


def lone_shim(host: Host) -> int:
    """The only one there is. A helper of its own bears its name until it has become another program."""
    found: list[int] = []

    def alone() -> bool:
        found[:] = shim(host)
        return len(found) == 1

    wait_until(alone, "one shim to be there")
    return found[0]


def resident_kib(pid: int) -> int:
    """RSS."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


def signal_all(processes: Iterable[int], number: int) -> None:
    """At least one; others may have ended since they were seen: helpers, and what dies with its parent."""
    reached = 0
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            reached += 1
    assert reached


def kill_all(processes: Iterable[int]) -> None:
    signal_all(processes, signal.SIGKILL)


def started(host: Host) -> bool:
    """There is a VM."""
    return bool(qemu(host))


def booted(host: Host) -> bool:
    """Its guest answers, and Create is at work in it."""
    return any("parma: ready" in log.read_text(errors="replace") for log in host.state.glob("*/console.log"))


@contextmanager
def exits(host: Host, file: Path) -> Iterator[Callable[[], list[int]]]:
    """The exit codes that containerd announces from now on."""
    with file.open("wb") as output, host.daemon.popen("events", stdout=output) as events:

        def announced() -> list[int]:
            whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            lines = [line for line in whole if " /tasks/exit " in line]
            return [json.loads(line[line.index("{") :])["exit_status"] for line in lines]

        try:
            yield announced
        finally:
            events.kill()


def die_while_running(
    host: Host,
    name: str,
    strike: Callable[[], None],
    *flags: str,
    expected: int,
    events: Path,
    command: tuple[str, ...] = SLEEP,
    policy: Path | None = None,
) -> None:
    """Runs a container, strikes, and asserts: ``ctr`` ends as expected, one exit is announced, nothing is left."""
    before = Inventory.take(host)
    arguments = host.run_arguments(name, command, "--rm", *flags, policy=policy)
    with (
        exits(host, events) as announced,
        host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
    ):
        try:
            wait_until(lambda: host.status(name) == "RUNNING", "the container to run")
            strike()
            assert process.wait(60) == expected
            wait_until(lambda: bool(announced()), "the exit to be announced")
            assert announced() == [137]
        finally:
            process.kill()
    host.remove(name)
    assert_nothing_left(host, before)


class Pod:
    """Containers of one VM, by the step they are at::

        running    with one exec that runs ("e-running"), one that is not started ("e-added"), and "e-starting"
        created    not started
        paused
        exited     with 21; not deleted

    and, once :meth:`freeze` has stopped the VM's processor, with a request under way that cannot be finished::

        creating, pausing, killing (SIGTERM), deleting (had exited with 21), updating (its limits), resuming (was
        paused), the start of "e-starting", and SIGKILL for "e-killing", an exec of the one that is being updated
    """

    STEADY = ("running", "created", "paused", "exited")
    BUSY = ("pausing", "killing", "deleting", "updating", "resuming")
    ALL = (*STEADY, *BUSY, "creating")

    def __init__(self, host: Host) -> None:
        self.host = host
        self.before = Inventory.take(host)
        self.containerd = Containerd(host)
        self.events = Events(self.containerd)
        self.under_way: dict[str, Any] = {}
        policy = host.policy(TRAPPED, execs=[SLEEP])
        pod = ("--annotation", "io.kubernetes.cri.sandbox-id=running")
        for name in (*self.STEADY, *self.BUSY):
            self.containerd.new_container(name, TRAPPED, *pod, policy=policy)
            self.containerd.create(name)
            if name != "created":
                self.containerd.start(name)
        self.containerd.new_container("creating", TRAPPED, *pod, policy=policy)
        for name in ("exited", "deleting"):
            self._end(name)
        self.containerd.add_exec("running", "e-running", SLEEP)
        self.containerd.start("running", "e-running")
        self.containerd.add_exec("running", "e-added", SLEEP)
        self.containerd.add_exec("running", "e-starting", SLEEP)
        self.containerd.add_exec("updating", "e-killing", SLEEP)
        self.containerd.start("updating", "e-killing")
        for name in ("paused", "resuming"):
            self.containerd.sending_pause(name).result()

    def _end(self, name: str) -> None:
        """With the container's own exit code: the signal has no effect before its shell has set the trap."""

        def stopped() -> bool:
            if self.containerd.state(name) == "STOPPED":
                return True
            self.containerd.sending_kill(name, signal.SIGTERM).code()
            return False

        wait_until(stopped, f"{name} to stop")

    def freeze(self) -> None:
        """The VM answers nothing any more, and a request of each kind is under way."""
        signal_all(qemu(self.host), signal.SIGSTOP)
        client = self.containerd
        self.under_way = {
            "creating": client.sending_create("creating"),
            "updating": client.sending_update("updating", {"pids": {"limit": 77}}),
            "resuming": client.sending_resume("resuming"),
            "killing an exec": client.sending_kill("updating", signal.SIGKILL, "e-killing"),
            "starting": client.sending_start("running", "e-starting"),
            "killing": client.sending_kill("killing", signal.SIGTERM),
            "deleting": client.sending_delete("deleting"),
            "pausing": client.sending_pause("pausing"),
        }
        wait_until(lambda: client.state("pausing") == "PAUSING", "the requests to be under way")
        # containerd has run the shim's `start` for the new container, which only joins the running shim.
        wait_until(lambda: len(shim(self.host)) == 1 and self._has_started("creating"), "the last Create to be")

    def _has_started(self, name: str) -> bool:
        bundle = self.host.daemon.root / "state/io.containerd.runtime.v2.task/default" / name
        return (bundle / "shim-binary-path").exists()

    def thaw(self) -> None:
        signal_all(qemu(self.host), signal.SIGCONT)

    def restart_containerd(self) -> float:
        """kill -9 and a new daemon; the seconds until that one answers."""
        self.host.daemon.kill()
        began = time.monotonic()
        self.host.daemon.start()
        self.containerd.reconnect()
        self.events.listen()
        return time.monotonic() - began

    def states(self) -> dict[str, str]:
        """Of every container."""
        return {name: self.containerd.state(name) for name in self.ALL}

    def attestation_labels(self) -> dict[str, str]:
        """Of every container."""
        found = {}
        for name in self.ALL:
            document = json.loads(self.host.daemon.ctr("container", "info", name).stdout)
            found[name] = str(document["Labels"].get("io.parma.attestation"))
        return found

    def exits(self) -> dict[str, list[tuple[str, int]]]:
        """Those announced, of every container: process and status."""
        return {name: self.events.exits(name) for name in self.ALL}

    def remove_all(self) -> dict[str, int]:
        """Deletes all; the exit status of each container that was still there."""
        found = {}
        for name in self.ALL:
            call = self.containerd.sending_delete(name)
            if code_of(call) == "OK":
                found[name] = call.result().exit_status
            self.host.remove(name)
        return found

    def close(self) -> None:
        self.containerd.close()
