# SPDX-License-Identifier: Apache-2.0
"""Networks for containers, made of namespaces that only the test has: no traffic leaves them."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

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


@contextlib.contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """This thread is in the namespace of the path; sockets that it makes stay there."""
    mine = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.enter(other)
        try:
            yield
        finally:
            netns.enter(mine)
    finally:
        os.close(mine)
        os.close(other)


def packet_socket() -> socket.socket:
    """What every interface of this thread's namespace sends and receives, from now on."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    packets.setblocking(False)
    return packets


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
        with entered(NAMESPACES / self.hub):
            packets = packet_socket()
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
    """A namespace that plays the node, and one that plays the world outside: 192.0.2.1 and 192.0.2.2."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name, self.outside = (f"parma{os.getpid()}-{role}{number}" for role in ("node", "outside"))
        for name in (self.name, self.outside):
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", namespace=name)
        ip("link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", self.outside, namespace=self.name)
        for name, address in ((self.name, "192.0.2.1/24"), (self.outside, "192.0.2.2/24")):
            ip("addr", "add", address, "dev", "wan", namespace=name)
            ip("link", "set", "wan", "up", namespace=name)

    @property
    def path(self) -> Path:
        """Of the node's namespace."""
        return NAMESPACES / self.name

    @property
    def wrapper(self) -> list[str]:
        """Words before a command that is to be executed on the node."""
        return ["nsenter", f"--net={self.path}", "--"]

    def close(self) -> None:
        for name in (self.outside, self.name):
            ip("netns", "del", name)
