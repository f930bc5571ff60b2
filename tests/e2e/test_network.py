# SPDX-License-Identifier: Apache-2.0
"""Containers in network namespaces that somebody else has made, by ctr or by hooks. Pods: test_pod_network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.client import Containerd
from tests.e2e.crashes import kill_all, shim
from tests.e2e.host import Host, wait_until
from tests.e2e.networks import Bridge, frames, inside, ip

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

SERVE = ("/bin/busybox", "httpd", "-f", "-p", "[::]:8080", "-h", "/bin")
SLEEP = ("/bin/sleep", "600")


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


def start(host: Host, name: str, command: tuple[str, ...], *flags: str, policy: Path | None = None) -> None:
    done = host.run(name, command, "--detach", "--null-io", *flags, policy=policy)
    assert done.returncode == 0, done.stderr


def answers(bridge: Bridge, url: str) -> bool:
    """Whether the host can fetch it."""
    return inside(bridge.hub, ["curl", "-sf", "--max-time", "20", "-o", "/dev/null", url]).returncode == 0


def redirections(bridge: Bridge, path: str) -> str:
    shown = subprocess.run(
        ["tc", "-n", bridge.members[path], "qdisc"], check=True, capture_output=True, text=True
    ).stdout
    return "\n".join(line for line in shown.splitlines() if "ingress" in line)


def test_a_container_answers_the_host_and_leaves_its_namespace_as_it_was(
    host_21: Host, name: str, bridge: Bridge
) -> None:
    path = bridge.member(2)
    start(host_21, name, SERVE, "--with-ns", f"network:{path}")
    try:
        assert "parma0" in ip("link", namespace=bridge.members[path])
        for url in ("http://10.88.0.2:8080/busybox", "http://[fd88::2]:8080/busybox"):
            wait_until(partial(answers, bridge, url), f"the server to answer the host at {url}")
    finally:
        host_21.remove(name)
    assert redirections(bridge, path) == ""
    assert "parma0" not in ip("link", namespace=bridge.members[path])


HOOK = """#!/bin/sh
pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/')
set -e
ip -n {hub} link add hooked type veth peer name eth0 netns $pid
ip -n {hub} link set hooked master br0 up
nsenter -t $pid -n ip addr add 10.88.0.9/24 dev eth0
nsenter -t $pid -n ip -6 addr add fd88::9/64 dev eth0 nodad
nsenter -t $pid -n ip link set eth0 up
nsenter -t $pid -n ip route add default via 10.88.0.1
"""


def test_a_hook_makes_the_network_as_nerdctls_does(host_21: Host, name: str, bridge: Bridge, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(HOOK.format(hub=bridge.hub))
    hook.chmod(0o755)
    client = Containerd(host_21)
    arguments = host_21.run_arguments(name, SERVE, "--annotation", 'nerdctl/networks=["bridge"]')
    created = host_21.daemon.ctr("container", "create", *arguments[1:])
    assert created.returncode == 0, created.stderr
    entry = {"path": str(hook), "args": ["hook"], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    client.change_spec(name, lambda spec: spec.update(hooks={"createRuntime": [entry]}))
    try:
        client.create(name)
        client.start(name)
        for url in ("http://10.88.0.9:8080/busybox", "http://[fd88::9]:8080/busybox"):
            wait_until(partial(answers, bridge, url), f"the server to answer the host at {url}")
    finally:
        client.close()
        host_21.remove(name)
    # The kernel removes what was in a network namespace some time after that has lost its last user.
    wait_until(lambda: "hooked" not in ip("link", namespace=bridge.hub), "the link to be removed")


def test_a_shim_that_is_killed_leaves_no_tap_and_no_redirection(own_host: Host, name: str, bridge: Bridge) -> None:
    path = bridge.member(2)
    start(own_host, name, SLEEP, "--with-ns", f"network:{path}")
    assert "eth0" in redirections(bridge, path)
    kill_all(shim(own_host))
    wait_until(lambda: own_host.status(name) == "", "containerd to notice, and to have cleaned up")
    wait_until(lambda: redirections(bridge, path) == "", "the redirection to be removed", timeout=20)
    wait_until(lambda: "parma0" not in ip("link", namespace=bridge.members[path]), "the tap to be removed", timeout=20)
    own_host.remove(name)


def test_a_policy_without_a_network_is_obeyed_and_nothing_was_sent(host_21: Host, name: str, bridge: Bridge) -> None:
    path = bridge.member(2, ipv6=False)
    policy = host_21.policy(SLEEP, extra=["--no-network"])
    with bridge.capture() as packets:
        done = host_21.run(name, SLEEP, "--detach", "--null-io", "--with-ns", f"network:{path}", policy=policy)
        sent = [frame for frame in frames(packets) if frame[6:12] == bridge.mac(path)]
    assert done.returncode != 0
    assert "configure_network denied" in done.stderr
    assert "allow_network" in done.stderr
    assert sent == []
    assert redirections(bridge, path) == ""
    host_21.daemon.ctr("container", "delete", name)


def test_the_hosts_own_network_namespace_is_refused(host_21: Host, name: str) -> None:
    done = host_21.run(name, SLEEP, "--detach", "--null-io", "--with-ns", f"network:/proc/{os.getpid()}/ns/net")
    assert done.returncode != 0
    assert "cannot share the host's network" in done.stderr
    host_21.daemon.ctr("container", "delete", name)
