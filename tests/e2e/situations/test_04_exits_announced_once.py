# SPDX-License-Identifier: Apache-2.0
"""Fifty exits while containerd is killed and comes back: each is announced, and again only where its death made it so.

A containerd that dies between taking an event and answering leaves a shim that cannot know: it sends that event again,
runc's as ours. So what is exact is the number of those that may come twice.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from devtool import paths
from devtool.containerd import RUNTIME, PrivateContainerd
from parma_shim.api import task_pb2
from tests.e2e.client import Containerd, Events, shim_of
from tests.e2e.host import BUSYBOX, RUNC, Host, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLEEP = ("/bin/sleep", "600")
EXITS = 50
ROUNDS = 5
"""In each containerd is killed in the middle: half of the exits happen before, half while it is away."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
PROCESSES = [(f"e{number}", SIGNALS[number % 2]) for number in range(EXITS)]


@pytest.fixture(params=[RUNC, RUNTIME], ids=["runc", "parma"])
def busy(request: pytest.FixtureRequest, archives: dict[str, Path]) -> Iterator[tuple[Host, Containerd]]:
    """A container "c" with fifty execs that run; containerd logs each event that it takes."""
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", level="trace") as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        host = Host(daemon, archives)
        client = Containerd(host)
        assert host.run("c", SLEEP, "--detach", policy=host.policy(SLEEP, execs=[SLEEP]), runtime=request.param)
        for exec_id, _ in PROCESSES:
            client.add_exec("c", exec_id, SLEEP)
            client.start("c", exec_id)
        yield host, client
        client.close()


def announced(host: Host) -> int:
    """Exits that containerd has taken from shims, in all its lives."""
    log = host.daemon.log.read_text(errors="replace")
    return sum('"event forwarded"' in line and "topic=/tasks/exit" in line for line in log.splitlines())


def test_each_of_fifty_exits_is_announced_though_containerd_dies_in_the_middle(busy: tuple[Host, Containerd]) -> None:
    host, client = busy
    events = Events(client)
    left = iter(PROCESSES)
    with shim_of(host, "c") as shim:

        def kill(count: int) -> None:
            for _ in range(count):
                exec_id, number = next(left)
                request = task_pb2.KillRequest(id="c", exec_id=exec_id, signal=number)
                shim.call("containerd.task.v3.Task", "Kill", request, Empty, timeout=60)

        for _ in range(ROUNDS):
            kill(EXITS // ROUNDS // 2)
            host.daemon.kill()
            kill(EXITS // ROUNDS // 2)
            host.daemon.start()
            client.reconnect()
            events.listen()
    for exec_id, number in PROCESSES:
        assert client.wait("c", exec_id) == 128 + number
        assert client.delete("c", exec_id) == 128 + number
    wait_until(lambda: announced(host) >= EXITS, f"{EXITS} exits, not {announced(host)}", timeout=30)
    seen = events.exits("c")
    assert set(seen) <= {(exec_id, 128 + number) for exec_id, number in PROCESSES}
    assert len(seen) - len(set(seen)) <= ROUNDS
    client.kill("c", signal.SIGKILL)
    assert client.wait("c") == 137
    wait_until(lambda: events.exits("c")[-1:] == [("c", 137)], "init's exit after those of its execs")
    wait_until(lambda: announced(host) > EXITS, "containerd to log init's exit")
    assert announced(host) <= EXITS + 1 + ROUNDS, "at most what was under way at each death of containerd comes twice"
