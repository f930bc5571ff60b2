# SPDX-License-Identifier: Apache-2.0
"""A container lives, and ends, while containerd is away."""

from __future__ import annotations

import time

import pytest

from tests.e2e.host import Host
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

TRAPPED = ("/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.2; done")


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
