# SPDX-License-Identifier: Apache-2.0
"""What was begun comes to nothing: Create fails, containerd dies, nobody connects to a shim."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.crashes import SLEEP, booted, exits, kill_all, lone_shim, qemu, shim, started
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

Victim = Callable[[Host], list[int]]


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


GUARD = 60.0 + 15.0 + 10.0
"""Seconds: how long a shim waits for a connection, how often it looks, and a busy machine."""


def test_a_shim_to_which_nobody_connects_ends_by_itself(own_host: Host, name: str) -> None:
    """containerd was killed between the answer of `start` and its first connection."""
    before = Inventory.take(own_host)
    bundle = own_host.daemon.root / "orphan" / name
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text('{"ociVersion":"1.2.0","annotations":{}}')
    os.mkfifo(bundle / "log")
    address = own_host.daemon.address
    given = {"TTRPC_ADDRESS": f"{address}.ttrpc", "GRPC_ADDRESS": str(address), "MAX_SHIM_VERSION": "2"}
    flags = ["-namespace", "x", "-address", str(address), "-id", name]
    done = subprocess.run(
        [own_host.daemon.root / "bin/containerd-shim-parma-v2", *flags, "start"],
        cwd=bundle,
        env={**own_host.daemon.environment(), **given},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    path = Path(json.loads(done.stdout)["address"].removeprefix("unix://"))
    assert path.exists()
    assert lone_shim(own_host)
    wait_until(lambda: not shim(own_host), "the shim to give up", timeout=GUARD)
    assert not path.exists()
    shutil.rmtree(bundle.parent)
    assert_nothing_left(own_host, before)
