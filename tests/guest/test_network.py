# SPDX-License-Identifier: Apache-2.0
"""The containers' network: hostile requests, and real interfaces of this kernel in namespaces of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from parma_guest.network import Network
from parma_guest.network_requests import configure_network
from parma_guest.syscalls import Kernel
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed, NotFound, ParmaError
from tests.guest.fakes import Rig

MAC = bytes.fromhex("02aabbccddee")
V4, V6 = socket.inet_aton("10.1.2.3"), socket.inet_pton(socket.AF_INET6, "fd12::3")
GATEWAY4, GATEWAY6 = socket.inet_aton("10.1.2.1"), socket.inet_pton(socket.AF_INET6, "fd12::1")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")


def interface(**changes: Any) -> pb.NetworkInterface:
    fields: dict[str, Any] = {
        "mac": MAC,
        "name": "eth0",
        "mtu": 1400,
        "addresses": [
            pb.NetworkAddress(address=V4, prefix_length=24, broadcast=socket.inet_aton("10.1.2.255")),
            pb.NetworkAddress(address=V6, prefix_length=64),
        ],
        "routes": [
            pb.NetworkRoute(destination=bytes(4), gateway=GATEWAY4),
            pb.NetworkRoute(destination=bytes(16), gateway=GATEWAY6, metric=1024),
            pb.NetworkRoute(destination=socket.inet_aton("192.0.2.0"), prefix_length=24, source=V4),
        ],
        "neighbours": [pb.NetworkNeighbour(address=GATEWAY4, mac=bytes.fromhex("020000000001"))],
    }
    return pb.NetworkInterface(**{**fields, **changes})


def request(*interfaces: pb.NetworkInterface) -> pb.ConfigureNetworkRequest:
    return pb.ConfigureNetworkRequest(interfaces=interfaces)


def address(data: bytes, prefix: int = 24, **more: Any) -> dict[str, Any]:
    return {"addresses": [pb.NetworkAddress(address=data, prefix_length=prefix, **more)], "routes": []}


def route(**fields: Any) -> dict[str, Any]:
    return {"routes": [pb.NetworkRoute(**fields)]}


def mapped(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


HOSTILE = {
    "no mac": {"mac": b""},
    "new mac of everybody": {"new_mac": b"\xff" * 6},
    "short new mac": {"new_mac": b"\2"},
    "multicast mac": {"mac": bytes.fromhex("0100000000aa")},
    "zero mac": {"mac": bytes(6)},
    "lo": {"name": "lo"},
    "a directory of settings": {"name": "all"},
    "a path": {"name": "../lo"},
    "a newline": {"name": "eth0\n"},
    "a pattern": {"name": "eth%d"},
    "16 characters": {"name": "e" * 16},
    "no name": {"name": ""},
    "small mtu": {"mtu": 1279},
    "large mtu": {"mtu": 65_536},
    "address of 5 bytes": address(bytes(5)),
    "unspecified address": address(bytes(4)),
    "loopback address": address(socket.inet_aton("127.0.0.2")),
    "loopback address 6": address(mapped("::1"), 128),
    "multicast address": address(socket.inet_aton("224.0.0.1")),
    "multicast address 6": address(mapped("ff02::1"), 64),
    "broadcast address": address(b"\xff" * 4),
    "mapped address": address(mapped("::ffff:127.0.0.1"), 128),
    "long prefix": address(V4, 33),
    "long prefix 6": address(V6, 129),
    "broadcast of IPv6": address(V6, 64, broadcast=V4),
    "broadcast is loopback": address(V4, 24, broadcast=socket.inet_aton("127.255.255.255")),
    "too many addresses": {"addresses": [pb.NetworkAddress(address=bytes([10, 0, 0, n])) for n in range(1, 40)]},
    "an address twice": {"addresses": [pb.NetworkAddress(address=V4, prefix_length=24)] * 2},
    "loopback route": route(destination=socket.inet_aton("127.0.0.0"), prefix_length=8),
    "loopback route 6": route(destination=mapped("::1"), prefix_length=128),
    "multicast route": route(destination=socket.inet_aton("224.0.0.0"), prefix_length=4),
    "route with bits behind its prefix": route(destination=V4, prefix_length=24),
    "route with a foreign source": route(destination=bytes(4), source=GATEWAY4),
    "route of two kinds": route(destination=bytes(16), gateway=GATEWAY4),
    "route without a size": route(destination=b""),
    "too many routes": {"routes": [pb.NetworkRoute(destination=bytes(4), metric=n) for n in range(129)]},
    "neighbour without a mac": {"neighbours": [pb.NetworkNeighbour(address=V4)]},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_what_no_honest_host_says_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        configure_network(request(interface(**changes)))


def test_interfaces_are_bounded_and_distinct() -> None:
    with pytest.raises(Malformed, match="no interfaces"):
        configure_network(request())
    with pytest.raises(Malformed, match="too many interfaces"):
        configure_network(request(*[interface()] * 9))
    with pytest.raises(Malformed, match="same hardware address"):
        configure_network(request(interface(), interface(name="eth1")))
    with pytest.raises(Malformed, match="same name"):
        configure_network(request(interface(), interface(mac=MAC[:5] + b"\1")))


def test_without_ipv6_a_small_mtu_is_fine() -> None:
    found = configure_network(request(interface(mtu=576, addresses=[], routes=[])))
    assert found[0].mtu == 576
    assert not found[0].has_ipv6


def test_the_policy_is_asked_before_anything_is_configured(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.set_policy()
    rig.engine.deny.add("configure_network")
    with pytest.raises(Denied):
        rig.group.configure_network(configure_network(request(interface())))
    assert not rig.network.configured
    rig.engine.deny.clear()
    rig.group.configure_network(configure_network(request(interface())))
    assert [item.name for item in rig.network.interfaces] == ["eth0"]
    assert rig.state == ("configure_network",)


# -- with this machine's kernel ----------------------------------------------------------------------------------


def away(work: Callable[[], None]) -> None:
    """In a network namespace of its own, on a thread that ends."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            Kernel().leave_network()
            work()
        except BaseException as error:  # noqa: BLE001  # raised again below
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def ip(*arguments: str, namespace: str = "") -> str:
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    found = subprocess.run([*enter, "ip", *arguments], check=True, capture_output=True, text=True)
    return found.stdout


@contextmanager
def network(directory: Path) -> Iterator[tuple[Network, str]]:
    """And the path of its namespace."""
    path = str(directory / "network")
    made = Network(Kernel(), path=path)
    try:
        yield made, path
    finally:
        subprocess.run(["umount", path], check=False, capture_output=True)


def add_card(mac: bytes = MAC) -> None:
    ip("link", "add", "card", "address", mac.hex(":"), "type", "veth", "peer", "name", "wire")
    ip("link", "set", "wire", "up")


@needs_root
def test_a_card_is_moved_configured_and_brought_up(tmp_path: Path) -> None:
    def work() -> None:
        with network(tmp_path) as (made, path):
            add_card()
            made.configure(configure_network(request(interface())))
            assert "card" not in ip("-br", "link").replace("wire@card", "")
            shown = ip("addr", namespace=path)
            assert "lo: <LOOPBACK,UP,LOWER_UP>" in shown
            assert "inet6 ::1/128" in shown
            assert "<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400" in shown
            assert "inet 10.1.2.3/24 brd 10.1.2.255" in shown
            assert "inet6 fd12::3/64 scope global nodad" in shown
            assert "fe80::" not in shown  # none that nobody asked for
            routes = ip("route", namespace=path).splitlines()
            assert "default via 10.1.2.1 dev eth0 proto static" in " | ".join(routes)
            assert any(line.startswith("192.0.2.0/24 dev eth0 proto static scope link src 10.1.2.3") for line in routes)
            assert "default via fd12::1 dev eth0 proto static metric 1024" in ip("-6", "route", namespace=path)
            assert "10.1.2.1 dev eth0 lladdr 02:00:00:00:00:01 PERMANENT" in ip("neigh", namespace=path)

    away(work)


@needs_root
def test_a_card_may_get_another_hardware_address(tmp_path: Path) -> None:
    def work() -> None:
        with network(tmp_path) as (made, path):
            add_card()
            made.configure(configure_network(request(interface(new_mac=bytes.fromhex("02000000beef")))))
            assert "02:00:00:00:be:ef" in ip("link", "show", "dev", "eth0", namespace=path)

    away(work)


@needs_root
def test_without_an_ipv6_address_there_is_no_ipv6(tmp_path: Path) -> None:
    def work() -> None:
        with network(tmp_path) as (made, path):
            add_card()
            plain = interface(addresses=[pb.NetworkAddress(address=V4, prefix_length=24)], routes=[])
            made.configure(configure_network(request(plain)))
            assert "inet6" not in ip("addr", "show", "dev", "eth0", namespace=path)

    away(work)


@needs_root
def test_a_card_that_is_not_there_changes_nothing_and_a_second_configuration_is_refused(tmp_path: Path) -> None:
    def work() -> None:
        with network(tmp_path) as (made, _path):
            wanted = configure_network(request(interface()))
            with pytest.raises(NotFound):
                made.configure(wanted)
            add_card()
            made.configure(wanted)
            with pytest.raises(FailedPrecondition):
                made.configure(wanted)

    away(work)


@needs_root
def test_what_the_kernel_refuses_is_an_error_and_there_is_no_second_attempt(tmp_path: Path) -> None:
    def work() -> None:
        with network(tmp_path) as (made, _path):
            add_card()
            unreachable = interface(routes=[pb.NetworkRoute(destination=bytes(4), gateway=socket.inet_aton("9.9.9.9"))])
            with pytest.raises(OSError, match="unreachable"):
                made.configure(configure_network(request(unreachable)))
            with pytest.raises(ParmaError):
                made.configure(configure_network(request(interface())))

    away(work)
