# SPDX-License-Identifier: Apache-2.0
"""Real CNI plugins (Debian's containernetworking-plugins) in namespaces of the test, and a published port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtool import cni
from tests.e2e.host import Host, wait_until
from tests.e2e.networks import Node, inside

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        os.geteuid() != 0 or not cni.PLUGINS.exists(), reason="needs root, and ./dev setup with Debian's archive"
    ),
]

SERVE = ("/bin/busybox", "httpd", "-f", "-p", "[::]:8080", "-h", "/bin")


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
