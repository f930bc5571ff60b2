# SPDX-License-Identifier: Apache-2.0
"""``ConfigureNetwork`` as typed values (`parma_guest.requests` is where the other requests become such).

All of it is hostile. Addresses travel as bytes and become ``ipaddress`` values, so there is no text to be parsed, and
none of it ever gets into a file. The one text is an interface's name, of few characters that mean nothing anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed

Address = IPv4Address | IPv6Address

MAX_INTERFACES: Final = 8
MAX_ADDRESSES: Final = 32
MAX_ROUTES: Final = 128
MAX_NEIGHBOURS: Final = 64
MIN_MTU: Final = 68  # RFC 791
MIN_MTU_IPV6: Final = 1280  # RFC 8200
MAX_MTU: Final = 65_535
_MAX_METRIC: Final = 2**32 - 1
_MAC_BYTES: Final = 6
_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,14}", re.ASCII)
_TAKEN: Final = frozenset({"lo", "all", "default"})  # the kernel's own, as links or as directories of settings


class InterfaceAddress(NamedTuple):
    """An address with the network that it is in."""

    address: Address
    prefix: int
    broadcast: Address | None
    prefix_route: bool


class Route(NamedTuple):
    """By ``gateway``, or without one on the link."""

    destination: Address
    prefix: int
    gateway: Address | None
    source: Address | None
    metric: int
    on_link: bool


class Neighbour(NamedTuple):
    """Where on the link an address is."""

    address: Address
    mac: bytes


class Interface(NamedTuple):
    """A network card, found by its hardware address, and what it is to be."""

    mac: bytes
    name: str
    mtu: int
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...]
    new_mac: bytes | None = None
    """What the hardware address is to be."""

    @property
    def has_ipv6(self) -> bool:
        """Whether there is an IPv6 address."""
        return any(item.address.version == 6 for item in self.addresses)


def configure_network(message: pb.ConfigureNetworkRequest) -> tuple[Interface, ...]:
    """See `Interface`. Raises `Malformed`."""
    _count(message.interfaces, MAX_INTERFACES, "interfaces")
    if not message.interfaces:
        raise Malformed("the network has no interfaces", expected="at least one")
    interfaces = tuple(_interface(item) for item in message.interfaces)
    for what, values in (
        ("hardware address", [interface.mac for interface in interfaces]),
        ("name", [interface.name for interface in interfaces]),
    ):
        if len(set(values)) != len(values):
            raise Malformed(f"two interfaces have the same {what}")
    return interfaces


def _interface(message: pb.NetworkInterface) -> Interface:
    _count(message.addresses, MAX_ADDRESSES, "addresses")
    _count(message.routes, MAX_ROUTES, "routes")
    _count(message.neighbours, MAX_NEIGHBOURS, "neighbours")
    if not _NAME.fullmatch(message.name) or message.name in _TAKEN:
        raise Malformed("the interface's name is malformed", expected="a letter, then letters and digits, 15 at most")
    interface = Interface(
        mac=_mac(message.mac),
        name=message.name,
        mtu=message.mtu,
        addresses=tuple(_interface_address(item) for item in message.addresses),
        routes=tuple(_route(item) for item in message.routes),
        neighbours=tuple(Neighbour(_host(item.address), _mac(item.mac)) for item in message.neighbours),
        new_mac=_mac(message.new_mac) if message.new_mac else None,
    )
    least = MIN_MTU_IPV6 if interface.has_ipv6 else MIN_MTU
    if not least <= interface.mtu <= MAX_MTU:
        raise Malformed("the interface's MTU is out of range", expected=f"{least} to {MAX_MTU}")
    own = {item.address for item in interface.addresses}
    if len(own) != len(interface.addresses):
        raise Malformed("an address is given twice")
    if any(route.source is not None and route.source not in own for route in interface.routes):
        raise Malformed("the source of a route is none of the interface's addresses")
    return interface


def _interface_address(message: pb.NetworkAddress) -> InterfaceAddress:
    address = _host(message.address)
    prefix = _prefix(message.prefix_length, address)
    broadcast = None
    if message.broadcast:
        broadcast = _address(message.broadcast)
        if broadcast.version != 4 or address.version != 4 or broadcast.is_loopback or broadcast.is_multicast:
            raise Malformed("a broadcast address makes no sense")
    return InterfaceAddress(address, prefix, broadcast, not message.no_prefix_route)


def _route(message: pb.NetworkRoute) -> Route:
    destination = _address(message.destination)
    prefix = _prefix(message.prefix_length, destination)
    try:
        network = (IPv4Network if destination.version == 4 else IPv6Network)((destination.packed, prefix))
    except ValueError:
        raise Malformed("the destination of a route has bits behind its prefix") from None
    if (prefix and network.is_multicast) or (prefix and network.is_loopback):
        raise Malformed("the destination of a route is loopback or multicast")
    gateway = _host(message.gateway) if message.gateway else None
    if gateway is not None and gateway.version < destination.version:
        raise Malformed("an IPv6 route has an IPv4 gateway")
    source = _host(message.source) if message.source else None
    if source is not None and source.version != destination.version:
        raise Malformed("a route and its source are not of one kind")
    if message.metric > _MAX_METRIC:
        raise Malformed("the metric of a route is out of range")
    return Route(destination, prefix, gateway, source, message.metric, message.on_link)


def _host(data: bytes) -> Address:
    """An address that a machine can have."""
    address = _address(data)
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise Malformed("an address is loopback, multicast or unspecified")
    if address.version == 4 and address == IPv4Address("255.255.255.255"):
        raise Malformed("an address is the broadcast address")
    return address


def _address(data: bytes) -> Address:
    if len(data) == 4:
        return IPv4Address(data)
    if len(data) != 16:
        raise Malformed("an address has a bad size", expected="4 or 16 bytes")
    address = IPv6Address(data)
    if address.ipv4_mapped is not None:  # some of the kernel takes it for the IPv4 address in it
        raise Malformed("an address is an IPv4 address mapped into IPv6")
    return address


def _prefix(length: int, address: Address) -> int:
    if length > address.max_prefixlen:
        raise Malformed("a prefix is too long", expected=f"at most {address.max_prefixlen}")
    return length


def _mac(data: bytes) -> bytes:
    if len(data) != _MAC_BYTES or data[0] & 1 or not any(data):
        raise Malformed("a hardware address is malformed", expected="6 bytes, of one device")
    return bytes(data)


def _count(items: Sized, most: int, what: str) -> None:
    if len(items) > most:
        raise Malformed(f"too many {what}", expected=f"at most {most}")
