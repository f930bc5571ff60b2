# SPDX-License-Identifier: Apache-2.0
"""As much of rtnetlink as the guest needs to configure an interface (rtnetlink(7), include/uapi/linux/rtnetlink.h).

Builders are pure: typed values to the bytes of one message. `Netlink` sends them, one at a time, and waits for the
kernel's answer. A socket belongs to the network namespace in which it was made, whoever uses it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_NEWROUTE: Final = 24
_RTM_NEWNEIGH: Final = 28
_REQUEST: Final = 0x001
_ACK: Final = 0x004
_DUMP: Final = 0x300
_EXCL: Final = 0x200
_CREATE: Final = 0x400

_IFF_UP: Final = 1
_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_NET_NS_FD: Final = 28
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_BROADCAST: Final = 4
_IFA_FLAGS: Final = 8
_IFA_F_NODAD: Final = 0x02  # the host's side has looked for duplicates; the guest sends nothing of its own accord
_IFA_F_NOPREFIXROUTE: Final = 0x200
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_PREFSRC: Final = 7
_RTA_VIA: Final = 18
_RTNH_F_ONLINK: Final = 4
_RT_TABLE_MAIN: Final = 254
_RTPROT_STATIC: Final = 4
_RTN_UNICAST: Final = 1
_SCOPE_LINK: Final = 253
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NUD_PERMANENT: Final = 0x80

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_MAX_ANSWER: Final = 64 * 1024
_SECONDS: Final = 10.0


class Link(NamedTuple):
    """A network device."""

    number: int
    name: str
    mac: bytes


class Message(NamedTuple):
    """A message without its header."""

    kind: int
    flags: int
    body: bytes


def family_of(address: Address) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def move(index: int, namespace: int, name: str) -> Message:
    """A link to the network namespace that the descriptor ``namespace`` is of, under a name."""
    attributes = _attribute(_IFLA_NET_NS_FD, struct.pack("=i", namespace)) + _attribute(_IFLA_IFNAME, _text(name))
    return Message(_RTM_NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes)


def set_mac(index: int, mac: bytes) -> Message:
    """Another hardware address for a link that is down."""
    return Message(_RTM_NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _attribute(_IFLA_ADDRESS, mac))


def set_up(index: int, mtu: int | None = None) -> Message:
    """A link up, with an MTU in bytes."""
    attributes = b"" if mtu is None else _attribute(_IFLA_MTU, struct.pack("=I", mtu))
    return Message(_RTM_NEWLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP) + attributes)


def add_address(index: int, address: Address, prefix: int, broadcast: Address | None, *, prefix_route: bool) -> Message:
    """An address, usable at once."""
    scope = _SCOPE_LINK if address.is_link_local else 0
    flags = _IFA_F_NODAD | (0 if prefix_route else _IFA_F_NOPREFIXROUTE)
    attributes = _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
    if broadcast is not None:
        attributes += _attribute(_IFA_BROADCAST, broadcast.packed)
    attributes += _attribute(_IFA_FLAGS, struct.pack("=I", flags))
    body = _ADDRESS.pack(family_of(address), prefix, flags & 0xFF, scope, index)
    return Message(_RTM_NEWADDR, _CREATE | _EXCL, body + attributes)


def add_route(
    index: int,
    destination: Address,
    prefix: int,
    *,
    gateway: Address | None = None,
    source: Address | None = None,
    metric: int = 0,
    on_link: bool = False,
) -> Message:
    """A route in the main table; without ``gateway`` the destination is on the link."""
    scope = 0 if gateway is not None or destination.version == 6 else _SCOPE_LINK
    attributes = _attribute(_RTA_OIF, struct.pack("=i", index))
    if prefix:
        attributes += _attribute(_RTA_DST, destination.packed)
    if gateway is not None:
        if gateway.version == destination.version:
            attributes += _attribute(_RTA_GATEWAY, gateway.packed)
        else:
            attributes += _attribute(_RTA_VIA, struct.pack("=H", family_of(gateway)) + gateway.packed)
    if source is not None:
        attributes += _attribute(_RTA_PREFSRC, source.packed)
    if metric:
        attributes += _attribute(_RTA_PRIORITY, struct.pack("=I", metric))
    flags = _RTNH_F_ONLINK if on_link and gateway is not None else 0
    body = _ROUTE.pack(family_of(destination), prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST, flags)
    return Message(_RTM_NEWROUTE, _CREATE | _EXCL, body + attributes)


def add_neighbour(index: int, address: Address, mac: bytes) -> Message:
    """A permanent entry of the neighbour table."""
    body = _NEIGHBOUR.pack(family_of(address), index, _NUD_PERMANENT, 0, _RTN_UNICAST)
    attributes = _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, mac)
    return Message(_RTM_NEWNEIGH, _CREATE | _EXCL, body + attributes)


def parse_link(body: bytes) -> Link:
    """The kernel's description of a link."""
    _family, _type, index, _flags, _change = _LINK.unpack_from(body)
    attributes = dict(_attributes(body[_LINK.size :]))
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace")
    return Link(index, name, attributes.get(_IFLA_ADDRESS, b""))


class Netlink:
    """A rtnetlink socket of the calling thread's network namespace. Methods raise OSError. For one thread at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 0

    def send(self, message: Message) -> None:
        """One change, acknowledged by the kernel."""
        for _ in self._exchange(message._replace(flags=message.flags | _ACK)):
            pass

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [parse_link(answer) for answer in self._exchange(Message(_RTM_GETLINK, _DUMP, body))]

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: Message) -> Iterator[bytes]:
        """Sends; yields the bodies of the answer's parts until its end."""
        self._sequence += 1
        size = _HEADER.size + len(message.body)
        header = _HEADER.pack(size, message.kind, message.flags | _REQUEST, self._sequence, 0)
        self._socket.send(header + message.body)
        while True:
            answer = self._socket.recv(_MAX_ANSWER)
            for kind, sequence, body in _messages(answer):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence number and body of each message."""
    while len(data) >= _HEADER.size:
        size, kind, _flags, sequence, _pid = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            raise OSError(errno.EBADMSG, "the kernel's answer makes no sense")
        yield kind, sequence, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= size <= len(data):
            raise OSError(errno.EBADMSG, "the kernel's answer makes no sense")
        yield kind, data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]


def _text(text: str) -> bytes:
    return text.encode("ascii") + b"\0"
