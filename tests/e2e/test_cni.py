# SPDX-License-Identifier: Apache-2.0
"""Real CNI plugins (Debian's containernetworking-plugins) in namespaces of the test, and a published port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.host import Host, wait_until
from tests.e2e.networks import NAMESPACES, inside, ip

PLUGINS = Path("/usr/lib/cni")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        os.geteuid() != 0 or not (PLUGINS / "portmap").exists() or shutil.which("iptables") is None,
        reason="needs root, containernetworking-plugins and iptables",
    ),
]

SERVE = ("/bin/busybox", "httpd", "-f", "-p", "[::]:8080", "-h", "/bin")


class Node:
    """A namespace that plays the node, one that plays the world outside, and what CNI makes of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.name, self.outside, self.pod = (f"parma{os.getpid()}-{role}" for role in ("node", "outside", "pod"))
        for name in (self.name, self.outside, self.pod):
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", namespace=name)
        ip("link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", self.outside, namespace=self.name)
        for name, address in ((self.name, "192.0.2.1/24"), (self.outside, "192.0.2.2/24")):
            ip("addr", "add", address, "dev", "wan", namespace=name)
            ip("link", "set", "wan", "up", namespace=name)
        self._pod_path = str(NAMESPACES / self.pod)

    @property
    def path(self) -> str:
        """The pod's namespace."""
        return self._pod_path

    def add_pod(self) -> dict[str, Any]:
        """As a container manager does it: the plugins of a list, each with the result of the one before."""
        ranges = [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]
        ipam = {
            "type": "host-local",
            "dataDir": str(self._directory / "ipam"),
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }
        common = {"cniVersion": "1.0.0", "name": "test"}
        result = self._plugin({**common, "type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam})
        ports = [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]
        self._plugin({**common, "type": "portmap", "prevResult": result, "runtimeConfig": {"portMappings": ports}})
        return result

    def _plugin(self, configuration: dict[str, Any]) -> dict[str, Any]:
        environment = {
            **os.environ,
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "pod",
            "CNI_NETNS": self.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
        }
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, PLUGINS / configuration["type"]],
            input=json.dumps(configuration),
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def close(self) -> None:
        for name in (self.pod, self.outside, self.name):
            ip("netns", "del", name)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.close()


def answers(namespace: str, url: str) -> bool:
    return inside(namespace, ["curl", "-sf", "--max-time", "20", "-o", "/dev/null", url]).returncode == 0


def test_a_published_port_answers_from_outside_of_the_node(host_21: Host, name: str, node: Node) -> None:
    result = node.add_pod()
    addresses = [item["address"].partition("/")[0] for item in result["ips"]]
    done = host_21.run(name, SERVE, "--detach", "--null-io", "--with-ns", f"network:{node.path}")
    assert done.returncode == 0, done.stderr
    try:
        for address in addresses:
            shown = f"[{address}]" if ":" in address else address
            url = f"http://{shown}:8080/busybox"
            wait_until(lambda url=url: answers(node.name, url), f"the node to reach {url}")  # type: ignore[misc]
        assert answers(node.outside, "http://192.0.2.1:18080/busybox")
        assert not answers(node.outside, "http://192.0.2.1:18081/busybox")
    finally:
        host_21.remove(name)
