# SPDX-License-Identifier: Apache-2.0
"""pax extended headers (POSIX.1-2001), read by the rules of Go's ``archive/tar``."""

from __future__ import annotations

import re
from typing import Final

from parma_policy.layers.errors import Kind, LayerError
from parma_policy.layers.times import Time, normalised

XATTR_PREFIX: Final = b"SCHILY.xattr."
SPARSE_MAP: Final = b"GNU.sparse.map"
_SPARSE_OFFSET: Final = b"GNU.sparse.offset"
_SPARSE_BYTES: Final = b"GNU.sparse.numbytes"
_STRINGS: Final = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_DECIMAL: Final = re.compile(rb"[+-]?[0-9]+")
_MIN_RECORD: Final = 5


def parse_int(text: bytes) -> int:
    """A decimal with optional sign that fits 64 bits; LayerError otherwise."""
    # The length check keeps a value of a megabyte of digits from being converted at all.
    if _DECIMAL.fullmatch(text):
        digits = text.lstrip(b"+-").lstrip(b"0")
        if len(digits) <= 19:
            value = -int(digits or b"0") if text[:1] == b"-" else int(digits or b"0")
            if -(1 << 63) <= value < 1 << 63:
                return value
    raise LayerError(Kind.TAR_HEADER, "pax header: a number does not parse")


def parse_time(text: bytes) -> Time:
    """``S[.F]`` in seconds; a leading minus sign makes the fraction negative too."""
    whole, _, fraction = text.partition(b".")
    seconds = parse_int(whole)
    if not fraction:
        return seconds, 0
    if not re.fullmatch(rb"[0-9]+", fraction):
        raise LayerError(Kind.TAR_HEADER, "pax header: a time does not parse")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    return normalised(seconds, -nanoseconds if whole[:1] == b"-" else nanoseconds)


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """All ``LEN key=value\\n`` records; of equal keys the last wins. LayerError when any is malformed.

    The repeated ``GNU.sparse.offset``/``numbytes`` pairs of sparse format 0.0 become one ``GNU.sparse.map``.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    position = 0
    while position < len(data):
        key, value, position = _record(data, position)
        if key in (_SPARSE_OFFSET, _SPARSE_BYTES):
            expected = _SPARSE_BYTES if len(sparse) % 2 else _SPARSE_OFFSET
            if key != expected or b"," in value:
                raise _malformed()
            sparse.append(value)
        else:
            records[key] = value
    if sparse:
        records[SPARSE_MAP] = b",".join(sparse)
    return records


def _record(data: bytes, start: int) -> tuple[bytes, bytes, int]:
    space = data.find(b" ", start)
    if space < 0:
        raise _malformed()
    length = parse_int(data[start:space])
    end = start + length
    if length < _MIN_RECORD or end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
        raise _malformed()
    key, equals, value = data[space + 1 : end - 1].partition(b"=")
    if not equals or not key:
        raise _malformed()
    if b"\0" in (value if key in _STRINGS else key):
        raise _malformed()
    return key, value, end


def _malformed() -> LayerError:
    return LayerError(Kind.TAR_HEADER, "pax header: malformed record")
