# SPDX-License-Identifier: Apache-2.0
"""What clients of containerd write where stdin, stdout and stderr are to go. Pure parsing.

======================  =====================================================
(empty)                 nowhere
``/path``, ``fifo://``  a fifo the client made, or an existing file or device
``file:///path``        a file, made if need be, appended to
``binary:///path?k=v``  a logger program, called with ``k v`` for arguments
======================  =====================================================
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from parma_wire.errors import Malformed, Unsupported


class Kind(Enum):
    """How a target is opened."""

    NONE = "none"
    PATH = "path"
    FILE = "file"
    LOGGER = "logger"


class Target(NamedTuple):
    """Where one of the three goes."""

    kind: Kind
    path: str = ""
    arguments: tuple[str, ...] = ()
    ready_required: bool = False
    """Of a logger: closing its ready pipe without a byte is an error (``binary-v2``)."""


_HEX: Final = frozenset("0123456789abcdefABCDEF")


def parse(value: str) -> Target:
    """One of the three strings of a request.

    Raises:
        Malformed: no absolute path.
        Unsupported: an unknown scheme.
    """
    if not value:
        return Target(Kind.NONE)
    scheme, separator, rest = value.partition("://")
    if not separator:
        return Target(Kind.PATH, _absolute(value))
    path, _, query = rest.partition("?")
    path = _absolute(_unquote(path))
    if scheme == "fifo":
        return Target(Kind.PATH, path)
    if scheme == "file":
        return Target(Kind.FILE, path)
    if scheme in ("binary", "binary-v2"):
        return Target(Kind.LOGGER, path, _arguments(query), scheme == "binary-v2")
    raise Unsupported(f"stdio of kind {scheme} is not supported", expected="a fifo, file:// or binary://")


def _arguments(query: str) -> tuple[str, ...]:
    """``k=v&k2`` as ``k v k2``: names and values are words of their own, an empty value is none."""
    words: list[str] = []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key:
            words.append(_unquote(key.replace("+", " ")))
            if value:
                words.append(_unquote(value.replace("+", " ")))
    return tuple(words)


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise Malformed(f"stdio path {path!r} cannot be used", expected="an absolute path")
    return path


def _unquote(text: str) -> str:
    """Percent decoding; a percent sign that is no escape stands for itself."""
    if "%" not in text:
        return text
    raw = text.encode()
    out = bytearray()
    position = 0
    while position < len(raw):
        code = raw[position + 1 : position + 3].decode("latin-1")
        if raw[position] == 0x25 and len(code) == 2 and _HEX.issuperset(code):
            out.append(int(code, 16))
            position += 3
        else:
            out.append(raw[position])
            position += 1
    return out.decode(errors="surrogateescape")
