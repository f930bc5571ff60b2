# SPDX-License-Identifier: Apache-2.0
"""kill -9 of QEMU, of the shim and of containerd, at each step: exits are reported, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.host import Host, Inventory, wait_until

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
Victim = Callable[[Host], list[int]]

TRAPPED = ("/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.2; done")


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


def kill_all(processes: list[int]) -> None:
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGKILL)


def assert_nothing_left(host: Host, name: str, before: Inventory) -> None:
    host.remove(name)
    wait_until(lambda: Inventory.take(host) == before, "everything of the container to be gone", timeout=20)


@contextmanager
def exits(host: Host, file: Path) -> Iterator[Callable[[], list[int]]]:
    """The exit codes that containerd announces from now on."""
    with file.open("wb") as output, host.daemon.popen("events", stdout=output) as events:

        def announced() -> list[int]:
            lines = [line for line in file.read_text().splitlines() if " /tasks/exit " in line]
            return [json.loads(line[line.index("{") :])["exit_status"] for line in lines]

        yield announced
        events.kill()


@pytest.mark.parametrize("victim", [qemu, shim], ids=["qemu", "shim"])
def test_death_of_a_running_container_is_reported_once_and_leaves_nothing(
    own_host: Host, name: str, victim: Victim, tmp_path: Path
) -> None:
    before = Inventory.take(own_host)
    arguments = own_host.run_arguments(name, SLEEP, "--rm")
    with (
        exits(own_host, tmp_path / "events") as announced,
        own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
    ):
        wait_until(lambda: own_host.status(name) == "RUNNING", "the container to run")
        kill_all(victim(own_host))
        # When the shim dies ctr's own wait is cut off, with runc as well: it says so with exit code 1.
        assert process.wait(30) == (137 if victim is qemu else 1)
        wait_until(lambda: bool(announced()), "the exit to be announced")
        assert announced() == [137]
    assert_nothing_left(own_host, name, before)
    assert own_host.run(name, ("/bin/true",), "--rm").returncode == 0


@pytest.mark.parametrize("victim", [qemu, shim], ids=["qemu", "shim"])
def test_death_while_booting_fails_the_create_and_leaves_nothing(own_host: Host, name: str, victim: Victim) -> None:
    before = Inventory.take(own_host)
    arguments = own_host.run_arguments(name, SLEEP, "--rm")
    with own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: bool(qemu(own_host)), "QEMU to start")
        kill_all(victim(own_host))
        assert process.wait(60) != 0
    assert_nothing_left(own_host, name, before)


def test_a_container_survives_containerds_death(own_host: Host, name: str) -> None:
    before = Inventory.take(own_host)
    policy = own_host.policy(TRAPPED, execs=[("/bin/echo", "still here")])
    assert own_host.run(name, TRAPPED, "--detach", policy=policy).returncode == 0
    own_host.daemon.kill()
    own_host.daemon.start()
    assert own_host.status(name) == "RUNNING"
    assert own_host.exec(name, "e1", "/bin/echo", "still here").stdout == "still here\n"
    own_host.signal_until_stopped(name)
    assert own_host.delete_task(name) == 9
    assert_nothing_left(own_host, name, before)


def test_an_exit_while_containerd_is_away_keeps_its_code(own_host: Host, name: str) -> None:
    before = Inventory.take(own_host)
    command = ("/bin/sh", "-c", "sleep 6; exit 21")
    assert own_host.run(name, command, "--detach").returncode == 0
    own_host.daemon.kill()
    # The container's own six seconds pass while nobody listens.
    time.sleep(8)
    own_host.daemon.start()
    assert own_host.status(name) == "STOPPED"
    assert own_host.delete_task(name) == 21
    assert_nothing_left(own_host, name, before)


def test_death_of_containerd_in_the_middle_of_a_create_leaves_nothing(own_host: Host, name: str) -> None:
    before = Inventory.take(own_host)
    arguments = own_host.run_arguments(name, SLEEP, "--detach")
    with own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: bool(qemu(own_host)), "QEMU to start")
        own_host.daemon.kill()
        assert process.wait(60) != 0
    own_host.daemon.start()
    assert_nothing_left(own_host, name, before)
