# SPDX-License-Identifier: Apache-2.0
"""Networks for containers, made of namespaces that only the test has: no traffic leaves them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from devtool import cni
from parma_shim.vm import netns

NAMESPACES = Path("/run/netns")
_numbers = itertools.count()


def ip(*arguments: str, namespace: str = "") -> str:
    """``ip``, in a named namespace or in the machine's."""
    enter = ["-n", namespace] if namespace else []
    done = subprocess.run(["ip", *enter, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def inside(namespace: str, command: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A program in a namespace."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *command], check=False, capture_output=True, text=True, timeout=timeout
    )


class Bridge:
    """A namespace that plays the host, and namespaces that hang on its bridge as CNI would have them."""

    def __init__(self) -> None:
        self._prefix = f"parma{os.getpid()}"
        self.hub = self._add()
        self.members: dict[str, str] = {}
        ip("link", "add", "br0", "type", "bridge", namespace=self.hub)
        ip("addr", "add", "10.88.0.1/24", "dev", "br0", namespace=self.hub)
        ip("addr", "add", "fd88::1/64", "dev", "br0", "nodad", namespace=self.hub)
        for link in ("lo", "br0"):
            ip("link", "set", link, "up", namespace=self.hub)

    def member(self, number: int, *, ipv6: bool = True) -> str:
        """The path of a namespace with the addresses 10.88.0.NUMBER and fd88::NUMBER."""
        name = self._add()
        port = f"port{number}"
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name, namespace=self.hub)
        ip("link", "set", port, "master", "br0", "up", namespace=self.hub)
        if not ipv6:
            inside(name, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
            inside(self.hub, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
        ip("addr", "add", f"10.88.0.{number}/24", "dev", "eth0", namespace=name)
        if ipv6:
            ip("addr", "add", f"fd88::{number:x}/64", "dev", "eth0", "nodad", namespace=name)
        ip("link", "set", "lo", "up", namespace=name)
        ip("link", "set", "eth0", "up", namespace=name)
        ip("route", "add", "default", "via", "10.88.0.1", namespace=name)
        path = str(NAMESPACES / name)
        self.members[path] = name
        return path

    def mac(self, path: str) -> bytes:
        """The hardware address of a member's ``eth0``."""
        shown = ip("-br", "link", "show", "dev", "eth0", namespace=self.members[path])
        return bytes.fromhex(shown.split()[2].replace(":", ""))

    @contextlib.contextmanager
    def capture(self) -> Iterator[socket.socket]:
        """A packet socket on the bridge's side of everything, from now on."""
        mine = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        hub = os.open(NAMESPACES / self.hub, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.enter(hub)
            try:
                packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            finally:
                netns.enter(mine)
        finally:
            os.close(mine)
            os.close(hub)
        packets.setblocking(False)
        with packets:
            yield packets

    def _add(self) -> str:
        name = f"{self._prefix}-{next(_numbers)}"
        ip("netns", "add", name)
        return name

    def close(self) -> None:
        """Everything is gone with the namespaces."""
        for name in (*self.members.values(), self.hub):
            ip("netns", "del", name)


def frames(packets: socket.socket) -> list[bytes]:
    """What was captured so far."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(packets.recv(65536))
    return found


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
            **cni.environment(),
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "pod",
            "CNI_NETNS": self.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(cni.PLUGINS),
        }
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, cni.PLUGINS / configuration["type"]],
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
