# SPDX-License-Identifier: Apache-2.0
"""Two pods, each in its VM, connected by containerd's CRI plugin with real CNI plugins (Debian's
containernetworking-plugins), on a node that is a network namespace of the test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from devtool import cni
from tests.e2e.collector import Collector
from tests.e2e.cri import Cri, Pod, cri_host
from tests.e2e.gate import PLUGIN, Frame, Gate
from tests.e2e.host import Host, wait_until
from tests.e2e.inventory import Inventory, assert_nothing_left
from tests.e2e.networks import Node, entered, inside, ip

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or not cni.PLUGINS.exists(), reason="needs root, and ./dev setup with Debian's archive"
    ),
]

ADDRESSES = ("10.99.0.2", "10.99.0.3", "fd99::2", "fd99::3")
"""Of two pods; the node's end with 1."""

TAP = "parma0"

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  automountServiceAccountToken: false
  containers:
  - name: app
    image: parma.example/busybox:test
    command: [/bin/sh, -c, "hostname > /tmp/page; exec busybox httpd -f -p '[::]:8080' -h /tmp"]
    ports: [PORT]
    livenessProbe:
      exec:
        command:
        - /bin/sh
        - -c
        - >-
          for at in 10.99.0.2 10.99.0.3 '[fd99::2]' '[fd99::3]'; do busybox wget -q -O - http://$at:8080/page; done;
          busybox ping -c 1 -W 20 10.99.0.1 > /dev/null && echo the host;
          busybox ping -6 -c 1 -W 20 fd99::1 > /dev/null && echo the host again
"""
FORWARDED = {"one": ("--forward-port", "8080"), "two": ()}
"""Options of the generator: who is to be reached on loopback."""

PORTS = {"one": "{containerPort: 8080, hostPort: 18080}", "two": "{containerPort: 8080}"}


class Scene:
    """The node with both pods running, and everything that was heard of them meanwhile."""

    def __init__(self, host: Host, cri: Cri, node: Node, gate: Gate) -> None:
        self.host, self.node, self.gate = host, node, gate
        self.before = Inventory.take(host)
        self.frames: dict[str, list[Frame]] = {}
        self.containers: dict[str, str] = {}
        self.owners: dict[str, Pod] = {}
        self.pods = [
            Pod.of(
                *(host, cri, MANIFEST.replace("NAME", name).replace("PORT", port), "parma"), generate=FORWARDED[name]
            )
            for name, port in PORTS.items()
        ]

    def start(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Pod.run, self.pods))
        self.frames = {name: self.gate.heard(name) for name in self.gate.namespaces}
        self.containers = {pod.id: pod.start("app") for pod in self.pods}
        for pod in self.pods:
            network = pod.status().status.network
            for address in (network.ip, *(more.ip for more in network.additional_ips)):
                self.owners[address] = pod
                url = f"http://{f'[{address}]' if ':' in address else address}:8080/page"
                wait_until(partial(answers, self.node.name, url, f"{name_of(pod)}\n"), f"{url} to answer the node")
        for name in self.gate.namespaces:
            self.frames[name] += self.gate.heard(name)

    def close(self) -> None:
        """Idempotent."""
        for pod in self.pods:
            if pod.id:
                pod.remove()
                pod.id = ""
        self.gate.deaf()

    def namespace(self, pod: Pod) -> str:
        """The name of its network namespace."""
        (address,) = (at for at, owner in self.owners.items() if owner is pod and "." in at)
        return next(name for name in self.gate.namespaces if f"{address}/" in ip("addr", namespace=name))


def name_of(pod: Pod) -> str:
    return str(pod.manifest["metadata"]["name"])


def answers(namespace: str, url: str, says: str) -> bool:
    return inside(namespace, ["curl", "-sf", "--max-time", "20", url]).stdout == says


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture(scope="module")
def collector(node: Node) -> Iterator[Collector]:
    with entered(node.path):
        collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def scene(
    archives: dict[str, Path], node: Node, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    gate = Gate(tmp_path_factory.mktemp("gate"))

    def network(conf_dir: Path, bin_dir: Path) -> None:
        gate.install(bin_dir)
        cni.write_network(conf_dir, bin_dir, [PLUGIN])

    containerd = {"wrapper": node.wrapper, "programs": [cni.BIN], "environment": collector.environment}
    try:
        with cri_host(archives, network=network, containerd=containerd) as host:
            cri = Cri(host)
            scene = Scene(host, cri, node, gate)
            try:
                scene.start()
                yield scene
            finally:
                scene.close()
                cri.close()
    finally:
        gate.close()


def test_the_guests_sent_nothing_before_they_were_configured(scene: Scene, collector: Collector) -> None:
    for pod in scene.pods:
        spans = partial(collector.spans, pod.id, "guest/ConfigureNetwork")
        wait_until(lambda spans=spans: bool(spans()), "the trace of the request that configures")  # type: ignore[misc]
        (request,) = spans()
        name = scene.namespace(pod)
        sent = [frame for frame in scene.frames[name] if frame.interface == TAP and not frame.outgoing]
        assert sent, "it has answered the node, and nothing of that was heard"
        assert [frame for frame in sent if frame.time < request.start_time_unix_nano] == []
        (link,) = json.loads(ip("-j", "link", "show", "dev", "eth0", namespace=name))
        assert {frame.data[6:12].hex(":") for frame in sent} == {link["address"]}


def test_pods_reach_each_other_and_the_host_over_ipv4_and_ipv6(scene: Scene) -> None:
    assert sorted(scene.owners) == sorted(ADDRESSES)
    expected = [*(name_of(scene.owners[address]) for address in ADDRESSES), "the host", "the host again"]
    for pod in scene.pods:
        command = pod.manifest["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
        code, output = pod.execute(scene.containers[pod.id], *command)
        assert (code, output.splitlines()) == (0, expected)


def test_a_published_port_answers_from_outside_of_the_node(scene: Scene) -> None:
    assert answers(scene.node.outside, "http://192.0.2.1:18080/page", "one\n")
    assert inside(scene.node.outside, ["curl", "-sf", "http://192.0.2.1:18081/page"]).returncode != 0


def test_a_pods_loopback_on_the_node_leads_to_its_containers_where_the_policy_lists_the_port(scene: Scene) -> None:
    """There containerd connects for ``kubectl port-forward``."""
    one, two = scene.pods
    for address in ("127.0.0.1", "[::1]"):
        assert answers(scene.namespace(one), f"http://{address}:8080/page", "one\n")
        for pod, port in ((one, 8081), (two, 8080)):
            # Verbose, as curl else says only that it could not connect when the answer is there before it looks.
            done = inside(scene.namespace(pod), ["curl", "-sv", f"http://{address}:{port}/page"])
            assert done.returncode != 0
            assert "reset" in done.stderr, done  # it was caught, and then refused


def test_pods_that_are_removed_leave_nothing(scene: Scene) -> None:
    assert "18080" in published(scene.node)
    scene.close()
    assert_nothing_left(scene.host, scene.before)
    assert "veth" not in ip("link", namespace=scene.node.name)
    assert "18080" not in published(scene.node)


def published(node: Node) -> str:
    """The rules of the node's packet filter."""
    done = inside(node.name, [str(cni.BIN / "iptables-save")])
    assert done.returncode == 0, done.stderr
    return done.stdout
