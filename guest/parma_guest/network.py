# SPDX-License-Identifier: Apache-2.0
"""The network of the containers: one namespace for all of them, which the enforcer itself is not in.

::

    initial namespace            the containers' namespace
      enforcer                     lo (up)
      network cards, down  ---->   eth0, ... : moved here by `Network.configure`, then configured, then up

A card is never up in the enforcer's namespace, which has no address but loopback and no way to send anything. In the
containers' namespace IPv6 is off on whatever has no IPv6 address, nothing is configured by what comes over the
network, and addresses are used without looking for duplicates: until it is configured the guest sends nothing at all.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from parma_guest import netlink, paths
from parma_guest.netlink import Netlink
from parma_guest.syscalls import MS_BIND
from parma_wire.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from parma_guest.network_requests import Interface

_T = TypeVar("_T")

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a connection to somebody on loopback."""

_LOOPBACK: Final = ("127.0.0.1", "::1")

_DEFAULTS: Final = (
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),  # no link-local address by itself
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/default/accept_source_route", "0"),
)


class NetworkKernel(Protocol):
    """What is needed of `parma_guest.syscalls.Kernel`."""

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        """mount(2)."""

    def leave_network(self) -> None:
        """Moves the calling thread to a new network namespace."""

    def enter_network(self, namespace: int) -> None:
        """Moves the calling thread to a network namespace."""


class Network:
    """Called under the enforcer's lock."""

    def __init__(
        self,
        kernel: NetworkKernel,
        *,
        path: str = paths.NETWORK,
        settings: Path = Path("/proc/sys/net"),
        open_netlink: Callable[[], Netlink] = Netlink,
    ) -> None:
        self._kernel = kernel
        self._path = path
        self._settings = settings
        self._open_netlink = open_netlink
        self._made = False
        self._configured = False

    @property
    def configured(self) -> bool:
        """Whether the containers have more than loopback."""
        return self._configured

    def namespace(self) -> str:
        """The path of the namespace, made at the first call. Raises OSError."""
        if not self._made:
            Path(self._path).touch(mode=0o600)
            _on_thread(self._make)
            self._made = True
        return self._path

    def configure(self, interfaces: tuple[Interface, ...]) -> None:
        """Once in the life of the VM, also when it fails. Raises `FailedPrecondition`, `NotFound` and OSError."""
        if self._configured:
            raise FailedPrecondition("the network is configured already")
        namespace = os.open(self.namespace(), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._open_netlink() as here:
                cards = {link.mac: link.number for link in here.links() if link.name != "lo"}
                for interface in interfaces:
                    if interface.mac not in cards:
                        raise NotFound("there is no network card with this hardware address")
                self._configured = True
                for interface in interfaces:
                    here.send(netlink.move(cards[interface.mac], namespace, interface.name))

            def work() -> None:
                self._kernel.enter_network(namespace)
                with self._open_netlink() as there:
                    indexes = {link.name: link.number for link in there.links()}
                    for interface in interfaces:
                        self._bring_up(there, indexes[interface.name], interface)

            _on_thread(work)
        finally:
            os.close(namespace)

    def connect(self, port: int) -> socket.socket:
        """To whoever listens on that port of the containers' loopback. Raises OSError. Not under the lock: it waits."""
        namespace = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

        def work() -> socket.socket:
            self._kernel.enter_network(namespace)
            for address in _LOOPBACK[:-1]:
                with suppress(ConnectionRefusedError):
                    return socket.create_connection((address, port), CONNECT_TIMEOUT)
            return socket.create_connection((_LOOPBACK[-1], port), CONNECT_TIMEOUT)

        try:
            return _on_thread(work)
        finally:
            os.close(namespace)

    def _make(self) -> None:
        self._kernel.leave_network()
        for name, value in _DEFAULTS:
            (self._settings / name).write_text(value)
        with self._open_netlink() as there:
            lo = next(link.number for link in there.links() if link.name == "lo")
            (self._settings / "ipv6/conf/lo/disable_ipv6").write_text("0")
            there.send(netlink.set_up(lo))
        self._kernel.mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", self._path, "", MS_BIND)

    def _bring_up(self, there: Netlink, index: int, interface: Interface) -> None:
        if interface.has_ipv6:
            (self._settings / "ipv6/conf" / interface.name / "disable_ipv6").write_text("0")
        if interface.new_mac is not None:
            there.send(netlink.set_mac(index, interface.new_mac))
        there.send(netlink.set_up(index, interface.mtu))
        for item in interface.addresses:
            there.send(
                netlink.add_address(index, item.address, item.prefix, item.broadcast, prefix_route=item.prefix_route)
            )
        # Those by a gateway last: it must be reachable by then.
        for route in sorted(interface.routes, key=lambda route: route.gateway is not None):
            there.send(
                netlink.add_route(
                    index,
                    route.destination,
                    route.prefix,
                    gateway=route.gateway,
                    source=route.source,
                    metric=route.metric,
                    on_link=route.on_link,
                )
            )
        for neighbour in interface.neighbours:
            there.send(netlink.add_neighbour(index, neighbour.address, neighbour.mac))


def _on_thread(work: Callable[[], _T]) -> _T:
    """Runs it on a thread that ends: that one changes its network namespace and never comes back."""
    results: list[_T] = []
    problems: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  # raised again below
            problems.append(error)

    thread = threading.Thread(target=run, name="network")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
