# SPDX-License-Identifier: Apache-2.0
"""A container that wants more memory than it may have: it alone ends, with 137, and the reason is announced first."""

from __future__ import annotations

import pytest

from tests.e2e.client import Containerd, Events
from tests.e2e.host import Host, wait_until

pytestmark = pytest.mark.e2e

GREEDY = ("/bin/sh", "-c", "grep -q max /sys/fs/cgroup/memory.max && exec sleep 600; exec tail /dev/zero")
"""Harmless without a limit. ``tail`` keeps what may be the last line, which here never ends."""

LIMIT = 24 << 20


def test_running_out_of_memory_ends_one_container_and_says_so(host_21: Host) -> None:
    limited, free = "oom-limited", "oom-free"
    policy = host_21.policy(GREEDY, execs=[("/bin/echo", "unharmed")])
    pod = ("--annotation", f"io.kubernetes.cri.sandbox-id={free}")
    client = Containerd(host_21)
    events = Events(client)
    client.new_container(free, GREEDY, *pod, policy=policy)
    client.new_container(limited, GREEDY, *pod, "--memory-limit", str(LIMIT), policy=policy)
    for name in (free, limited):
        client.create(name)
        client.start(name)
    assert client.wait(limited) == 137
    wait_until(lambda: events.exits(limited) == [(limited, 137)], "its exit to be announced")
    assert events.topics(limited)[-2:] == ["/tasks/oom", "/tasks/exit"]
    assert client.state(free) == "RUNNING"
    assert host_21.exec(free, "e1", "/bin/echo", "unharmed").stdout == "unharmed\n"
    assert "/tasks/oom" not in events.topics(free)
    for name in (limited, free):
        host_21.remove(name)
    client.close()
