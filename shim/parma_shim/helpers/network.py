# SPDX-License-Identifier: Apache-2.0
"""Helper: connect a network namespace of the host to a VM, and say how its interfaces are configured.

Each Ethernet interface of the namespace that is up gets a tap beside it, and whatever arrives at one of the two leaves
by the other (an ingress qdisc with a redirecting filter on each). So the VM has the interface's place in the network,
with its hardware address, whatever it is: veth, macvlan, a passed-through card. The namespace's own addresses stay
where they are and are unreachable in it from outside.

Request: ``{"namespace": path}``. On the socket ``--descriptors``: first a line of JSON with the taps' descriptors,
``{"identity", "links": [{"index", "mac"}]}``; then the caller says with one byte that QEMU has them. Answer:
``{"interfaces": [...]}``, see `describe`. With ``"catch_ports": true`` in the request two more descriptors come before
the answer, those of `port_catcher.catch`; where that cannot be had, the answer says why, as ``"no_ports"``.

Where hooks are to make the network, later, it is two requests. ``{"cards": [mac, ...]}`` makes a namespace with that
many taps; its descriptor comes behind theirs. ``{"namespace", "cards"}``, once the hooks have run, is as above but for
the taps, which are there already; each interface then has the ``card`` that is to become it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from parma_shim.helpers.main import Document, run
from parma_shim.vm import netns
from parma_wire.errors import FailedPrecondition, NotFound, Unavailable, Unsupported

MAX_INTERFACES: Final = 8
READY: Final = b"\1"

_TUN: Final = "/dev/net/tun"
_TAP_NAME: Final = b"parma%d"
_TUNSETIFF: Final = 0x400454CA
_TUNSETIFINDEX: Final = 0x400454DA
_LAST_INDEX: Final = 0xFFFF
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_NS_GET_NSTYPE: Final = 0xB703
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_ARPHRD_ETHER: Final = 1

_ETH_P_ALL: Final = 3
_EVERYTHING: Final = "0x0/0x0+0"  # u32: no bit compared
_NO_CLASS: Final = 0x10001  # an ingress qdisc has none
_HANDLE: Final = 0xFFFF0000
_ADDR_GEN_MODE_NONE: Final = 1
_TABLE_MAIN: Final = 254
_UNICAST: Final = 1
_BY_KERNEL: Final = 2
_ON_LINK: Final = 4
_PERMANENT: Final = 0x80
_DAD_FAILED: Final = 0x08
_NO_PREFIX_ROUTE: Final = 0x200


class Link(NamedTuple):
    """An interface of the namespace."""

    number: int
    name: str
    mac: str


def connect(request: Document, channel: socket.socket) -> Document:
    """See the module."""
    cards = [str(mac) for mac in request.get("cards") or []]
    if cards:
        return connect_cards(str(request["namespace"]), cards) if "namespace" in request else prepare(cards, channel)
    identity = enter(str(request["namespace"]))
    links = ethernet_links()
    taps = [make_tap() for _ in links]
    head = {"identity": identity, "links": [{"index": link.number, "mac": link.mac} for link in links]}
    socket.send_fds(channel, [json.dumps(head).encode() + b"\n"], [fd for fd, _ in taps])
    if not links:
        return {"interfaces": [], **_caught_ports(request, channel)}
    from pyroute2 import IPRoute  # while QEMU is being started

    if channel.recv(1) != READY:
        raise Unavailable("there is no VM to connect")
    with IPRoute() as route:
        interfaces = []
        for link, (fd, name) in zip(links, taps, strict=True):
            tap = socket.if_nametoindex(name)
            os.close(fd)
            interfaces.append(describe(route, link))
            redirect(route, link, tap, mtu=interfaces[-1]["mtu"])
    return {"interfaces": interfaces, **_caught_ports(request, channel)}


def _caught_ports(request: Document, channel: socket.socket) -> Document:
    """Sends what catches them; where there is nothing, the answer says why: all the rest of a pod works without."""
    if not request.get("catch_ports"):
        return {}
    from parma_shim.helpers import port_catcher

    try:
        bring_up("lo")
        caught = port_catcher.catch()
    except (OSError, Unavailable) as error:
        return {"no_ports": str(error)}
    socket.send_fds(channel, [READY], caught)
    for descriptor in caught:
        os.close(descriptor)
    return {}


def bring_up(name: str) -> None:
    """Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def prepare(cards: list[str], channel: socket.socket) -> Document:
    """A namespace with a tap for each card. Raises Unavailable."""
    try:
        netns.leave()
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"cannot make a network namespace: {error.strerror}") from error
    taps = [make_tap() for _ in cards]
    head = {"identity": netns.identity(namespace), "links": [{"index": 0, "mac": mac} for mac in cards]}
    socket.send_fds(channel, [json.dumps(head).encode() + b"\n"], [*(fd for fd, _ in taps), namespace])
    return {}


def connect_cards(path: str, cards: list[str]) -> Document:
    """What hooks have made of the namespace, with the taps that `prepare` has. Raises Unsupported."""
    from pyroute2 import IPRoute

    enter(path)
    links = ethernet_links()
    if len(links) > len(cards):
        raise Unsupported(f"hooks made {len(links)} interfaces", expected=f"at most {len(cards)}")
    interfaces = []
    with IPRoute() as route:
        for number, link in enumerate(links):
            tap = socket.if_nametoindex(_TAP_NAME.decode().replace("%d", str(number)))
            interfaces.append({**describe(route, link), "card": cards[number]})
            redirect(route, link, tap, mtu=interfaces[-1]["mtu"])
    return {"interfaces": interfaces}


def enter(path: str) -> str:
    """Join a network namespace; returns which it is. Raises NotFound, Unsupported."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"no network namespace at {path}: {error.strerror}") from error
    try:
        try:
            kind = fcntl.ioctl(namespace, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != netns.CLONE_NEWNET:
            raise NotFound(f"{path} is no network namespace")
        identity = netns.identity(namespace)
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if netns.identity(own) == identity:
                raise Unsupported(
                    "a confidential container cannot share the host's network", hint="give it a namespace of its own"
                )
        finally:
            os.close(own)
        netns.enter(namespace)
        return identity
    finally:
        os.close(namespace)


def ethernet_links() -> list[Link]:
    """The interfaces to connect. Raises Unsupported for one that is up and cannot be, or for too many."""
    links = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        for index, name in socket.if_nameindex():
            request = struct.pack("16s24x", name.encode())
            (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
            if flags & _IFF_LOOPBACK or not flags & _IFF_UP:
                continue
            answer = fcntl.ioctl(control, _SIOCGIFHWADDR, request)
            (kind,) = struct.unpack_from("H", answer, 16)
            if kind != _ARPHRD_ETHER:
                raise Unsupported(f"the interface {name} is not Ethernet, and cannot be had in a VM")
            links.append(Link(index, name, answer[18:24].hex(":")))
    if len(links) > MAX_INTERFACES:
        raise Unsupported(f"too many network interfaces: {len(links)}", expected=f"at most {MAX_INTERFACES}")
    return links


def make_tap() -> tuple[int, str]:
    """A tap in this namespace that lives as long as its descriptor; down, without an address. Raises Unavailable.

    It comes after every other interface, also after those that hooks make later: who looks for a container's address
    takes the first interface that is up (nerdctl inspect).
    """
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
        taken = {index for index, _ in socket.if_nameindex()}
        last = next(index for index in range(_LAST_INDEX, 0, -1) if index not in taken)
        fcntl.ioctl(fd, _TUNSETIFINDEX, struct.pack("I", last))
        answer = fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", _TAP_NAME, _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    except OSError as error:
        raise Unavailable(f"cannot make a tap: {error.strerror}", hint="modprobe tun") from error
    return fd, answer[:16].rstrip(b"\0").decode()


def redirect(route: Any, link: Link, tap: int, *, mtu: int) -> None:
    """What arrives at either of the two leaves by the other. Raises FailedPrecondition, Unavailable."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        route.link(
            "set",
            index=tap,
            mtu=mtu,
            IFLA_AF_SPEC={"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]]},
        )
        for here, there in ((link.number, tap), (tap, link.number)):
            route.tc("add", "ingress", index=here, handle=_HANDLE)
            action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": there}
            route.tc(
                "add-filter",
                "u32",
                index=here,
                parent=_HANDLE,
                prio=1,
                protocol=_ETH_P_ALL,
                target=_NO_CLASS,
                keys=[_EVERYTHING],
                action=action,
            )
        route.link("set", index=tap, state="up")
    except NetlinkError as error:
        if error.code == 17:
            raise FailedPrecondition(f"the interface {link.name} has an ingress qdisc already") from error
        raise Unavailable(
            f"cannot connect the interface {link.name}: {error}",
            hint="the kernel needs sch_ingress, cls_u32 and act_mirred",
        ) from error


def describe(route: Any, link: Link) -> dict[str, Any]:
    """How the interface is configured: what the guest is told, addresses as text."""
    found = route.get_links(link.number)[0]
    return {
        "mac": link.mac,
        "name": link.name,
        "mtu": _attributes(found)["IFLA_MTU"],
        **_addresses(route.get_addr(index=link.number), list(_routes(route, link))),
        "neighbours": [
            {"address": attributes["NDA_DST"], "mac": attributes["NDA_LLADDR"]}
            for item in route.get_neighbours(ifindex=link.number)
            if item["state"] & _PERMANENT
            for attributes in [_attributes(item)]
            if "NDA_LLADDR" in attributes and attributes.get("NDA_DST") and not _is_multicast(attributes["NDA_DST"])
        ],
    }


def _addresses(items: Iterable[Any], routes: list[dict[str, Any]]) -> dict[str, Any]:
    addresses = []
    for item in items:
        attributes = _attributes(item)
        flags = attributes.get("IFA_FLAGS", item["flags"])
        if flags & _DAD_FAILED:
            continue
        address, prefix = attributes["IFA_ADDRESS"], item["prefixlen"]
        local = attributes.get("IFA_LOCAL", address)
        if local != address:  # a point-to-point interface: the prefix is that of the other side
            routes.append(_route(address, prefix, source=local))
            address, prefix = local, 128 if ":" in local else 32
        addresses.append(
            {
                "address": address,
                "prefix": prefix,
                "broadcast": attributes.get("IFA_BROADCAST", ""),
                "no_prefix_route": bool(flags & _NO_PREFIX_ROUTE),
            }
        )
    return {"addresses": addresses, "routes": routes}


def _routes(route: Any, link: Link) -> Iterator[dict[str, Any]]:
    """Of the main table by this interface, but those that addresses bring by themselves."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for item in route.get_routes(family=family, table=_TABLE_MAIN):
            attributes = _attributes(item)
            if item["type"] != _UNICAST or item["proto"] == _BY_KERNEL:
                continue
            if "RTA_MULTIPATH" in attributes:
                raise Unsupported("routes over several interfaces at once are not supported")
            if attributes.get("RTA_OIF") != link.number:
                continue
            via = attributes.get("RTA_VIA")
            gateway = attributes.get("RTA_GATEWAY") or (via["addr"] if via else "")
            yield _route(
                attributes.get("RTA_DST", "0.0.0.0" if family == socket.AF_INET else "::"),  # noqa: S104  # a route
                item["dst_len"],
                gateway=gateway,
                source=attributes.get("RTA_PREFSRC", ""),
                metric=attributes.get("RTA_PRIORITY", 0),
                on_link=bool(item["flags"] & _ON_LINK),
            )


def _route(
    destination: str, prefix: int, *, gateway: str = "", source: str = "", metric: int = 0, on_link: bool = False
) -> dict[str, Any]:
    return {
        "destination": destination,
        "prefix": prefix,
        "gateway": gateway,
        "source": source,
        "metric": metric,
        "on_link": on_link,
    }


def _attributes(message: Any) -> Mapping[str, Any]:
    return dict(message["attrs"])


def _is_multicast(address: str) -> bool:
    return address.startswith("ff") if ":" in address else address.split(".")[0] in map(str, range(224, 256))


def main() -> int:
    """Serve one request."""
    parser = argparse.ArgumentParser(prog="parma_shim.helpers.network", description=__doc__)
    parser.add_argument("--descriptors", type=int, required=True, metavar="FD")
    options = parser.parse_args()
    with socket.socket(fileno=options.descriptors) as channel:
        return run(lambda request: connect(request, channel))


if __name__ == "__main__":
    sys.exit(main())
