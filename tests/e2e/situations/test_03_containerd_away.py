# SPDX-License-Identifier: Apache-2.0
"""A container lives, and ends, while containerd is away."""

from __future__ import annotations

import contextlib
import signal

import pytest
from google.protobuf.empty_pb2 import Empty

import ttrpc
from parma_shim.api import task_pb2
from tests.e2e.client import Containerd, shim_of
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left

pytestmark = pytest.mark.e2e

TRAPPED = ("/bin/sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.2; done")


def exit_status(shim: ttrpc.Client, name: str) -> int:
    """As the shim has it; 0 of one that runs."""
    state = task_pb2.StateRequest(id=name)
    return shim.call("containerd.task.v3.Task", "State", state, task_pb2.StateResponse, timeout=30).exit_status


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
    with shim_of(own_host, name) as shim:
        own_host.daemon.kill()
        # The container's own six seconds pass while nobody listens.
        wait_until(lambda: exit_status(shim, name) == 21, "the container to end")
    own_host.daemon.start()
    assert own_host.status(name) == "STOPPED"
    assert own_host.delete_task(name) == 21
    own_host.remove(name)
    assert_nothing_left(own_host, before)


def test_wait_tells_the_code_of_an_exit_that_containerd_missed(own_host: Host, name: str) -> None:
    client = Containerd(own_host)
    client.new_container(name, TRAPPED)
    client.create(name)
    client.start(name)
    with shim_of(own_host, name) as shim:
        own_host.daemon.kill()

        def ended() -> bool:
            with contextlib.suppress(ttrpc.TtrpcError):  # it has ended already
                request = task_pb2.KillRequest(id=name, signal=signal.SIGTERM)
                shim.call("containerd.task.v3.Task", "Kill", request, Empty, timeout=30)
            return exit_status(shim, name) == 9

        wait_until(ended, "the container to end")
    own_host.daemon.start()
    client.reconnect()
    assert client.state(name) == "STOPPED"
    assert client.wait(name) == 9
    assert client.delete(name) == 9
    client.close()
    own_host.remove(name)
