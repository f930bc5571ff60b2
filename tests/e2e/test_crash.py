# SPDX-License-Identifier: Apache-2.0
"""kill -9 of QEMU, of the shim and of containerd beneath one container: its boot, its run, its end.

The other steps of a container's life are in test_crash_steps, where one VM holds them all.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.crashes import kill_all, qemu, shim
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

SLEEP = ("/bin/sleep", "600")
Victim = Callable[[Host], list[int]]

TRAPPED = ("/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.2; done")


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
    own_host.remove(name)
    assert_nothing_left(own_host, before)
    assert own_host.run(name, ("/bin/true",), "--rm").returncode == 0


@pytest.mark.parametrize("moment", [started, booted], ids=["booting", "in Create"])
@pytest.mark.parametrize("victim", [qemu, shim], ids=["qemu", "shim"])
def test_death_before_the_container_exists_fails_the_create_and_leaves_nothing(
    own_host: Host, name: str, victim: Victim, moment: Callable[[Host], bool], tmp_path: Path
) -> None:
    before = Inventory.take(own_host)
    arguments = own_host.run_arguments(name, SLEEP, "--rm")
    with (
        exits(own_host, tmp_path / "events") as announced,
        own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
    ):
        wait_until(lambda: moment(own_host), "the moment")
        kill_all(victim(own_host))
        assert process.wait(60) != 0
        own_host.remove(name)
        assert_nothing_left(own_host, before)
        # No exit is announced of what never was (a dead shim's containerd tells, as with runc, before it has cleaned
        # up; by now it has).
        assert announced() == []


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
    own_host.remove(name)
    assert_nothing_left(own_host, before)


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
    own_host.remove(name)
    assert_nothing_left(own_host, before)


@pytest.mark.parametrize("moment", [started, booted], ids=["booting", "in Create"])
def test_death_of_containerd_before_the_container_exists_leaves_nothing(
    own_host: Host, name: str, moment: Callable[[Host], bool]
) -> None:
    before = Inventory.take(own_host)
    arguments = own_host.run_arguments(name, SLEEP, "--detach")
    with own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: moment(own_host), "the moment")
        own_host.daemon.kill()
        assert process.wait(60) != 0
    own_host.daemon.start()
    own_host.remove(name)
    assert_nothing_left(own_host, before)
