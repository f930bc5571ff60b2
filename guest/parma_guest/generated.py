# SPDX-License-Identifier: Apache-2.0
"""``/etc/resolv.conf``, ``/etc/hosts`` and ``/etc/hostname``: what the host sends is parsed, and written anew.

So a container finds in them what they are for and nothing else: no line that only looks like a comment, no option that
makes a resolver do something, no address for the name of the machine itself. Raises `Malformed`; reading what was
written gives the same again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Final

from parma_guest.values import Hostname
from parma_wire.errors import Malformed

MAX_BYTES: Final = 64 * 1024
MAX_NAMESERVERS: Final = 8
MAX_SEARCH: Final = 32
MAX_NAMES: Final = 64

_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.ASCII)
_OPTION: Final = re.compile(
    r"(ndots|timeout|attempts):[0-9]{1,2}|rotate|edns0|trust-ad|single-request(-reopen)?|use-vc|no-tld-query", re.ASCII
)
_SPACE: Final = re.compile(r"[ \t]+")
_MAX_NAME: Final = 253


def resolv_conf(data: bytes) -> bytes:
    """resolv.conf(5): name servers, search list, options that only concern how to ask."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for words in _lines(data, "#;"):
        keyword, values = words[0], words[1:]
        if keyword == "nameserver" and len(values) == 1:
            servers.append(str(_address(values[0])))
        elif keyword in ("search", "domain"):
            search = [] if values == ["."] else [_name(value) for value in values]
        elif keyword == "options":
            options += values
        else:
            raise Malformed("a line of resolv.conf is not understood", expected="nameserver, search or options")
    if not all(map(_OPTION.fullmatch, options)):
        raise Malformed("an option of resolv.conf is not allowed")
    if len(servers) > MAX_NAMESERVERS or len(search) > MAX_SEARCH or len(options) > MAX_SEARCH:
        raise Malformed("resolv.conf has too much of something")
    lines = [*([f"search {' '.join(search)}"] if search else []), *(f"nameserver {server}" for server in servers)]
    return _text([*lines, *([f"options {' '.join(options)}"] if options else [])])


def hosts(data: bytes) -> bytes:
    """hosts(5): an address and its names on each line. ``localhost`` is this machine, and no other address is."""
    lines = []
    for words in _lines(data, "#"):
        address, names = _address(words[0]), [_name(word) for word in words[1:]]
        if not 1 <= len(names) <= MAX_NAMES:
            raise Malformed("a line of hosts has no names, or too many")
        local = [name for name in names if f".{name.lower().rstrip('.')}".endswith(".localhost")]
        if local and not address.is_loopback:
            raise Malformed("hosts gives localhost an address of another machine")
        lines.append(f"{address}\t{' '.join(names)}")
    return _text(lines)


def hostname(data: bytes) -> bytes:
    """hostname(5): one name."""
    lines = list(_lines(data, "#"))
    if len(lines) != 1 or len(lines[0]) != 1 or not Hostname(lines[0][0]):
        raise Malformed("hostname is malformed", expected="one name of RFC 1123 labels")
    return _text(lines[0])


GENERATED: Final[Mapping[str, Callable[[bytes], bytes]]] = MappingProxyType(
    {"/etc/resolv.conf": resolv_conf, "/etc/hosts": hosts, "/etc/hostname": hostname}
)
"""By the destination in a container: no other content gets there from the host."""


def _lines(data: bytes, comments: str) -> Iterator[list[str]]:
    """The words of each line that has any."""
    if len(data) > MAX_BYTES:
        raise Malformed("the file is too large", expected=f"at most {MAX_BYTES} bytes")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("the file is not ASCII text") from None
    for line in text.split("\n"):
        bare = re.split(f"[{comments}]", line.removesuffix("\r"), maxsplit=1)[0].strip(" \t")
        if any(character < " " and character != "\t" for character in bare) or "\x7f" in bare:
            raise Malformed("the file has control characters")
        if bare:
            yield _SPACE.split(bare)


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        raise Malformed("an address in the file is malformed") from None
    if "%" in text or address.is_multicast or address.is_unspecified:
        # An interface behind it (fe80::1%eth0) means nothing in another machine.
        raise Malformed("an address in the file is multicast, unspecified or of one interface only")
    return address


def _name(text: str) -> str:
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text):
        raise Malformed("a name in the file is malformed")
    return text


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
