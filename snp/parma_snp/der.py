# SPDX-License-Identifier: Apache-2.0
"""The few DER values that AMD's certificate extensions contain, read strictly.

Source: ITU-T X.690, sections 8 and 10. Lengths in these extensions are below 128, so only the short form exists.
"""

from __future__ import annotations

from typing import Final

_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_STRING_TAGS: Final = (0x0C, 0x13, 0x16)  # UTF8String, PrintableString, IA5String


def _content(data: bytes, tags: tuple[int, ...]) -> bytes:
    if len(data) < 2 or data[0] not in tags or data[1] >= 0x80 or data[1] != len(data) - 2:
        raise ValueError(f"not one short DER value of tag {'/'.join(hex(tag) for tag in tags)}: {data.hex()}")
    return data[2:]


def unsigned_integer(data: bytes) -> int:
    """A DER INTEGER that is not negative, in its shortest form. Raises ValueError."""
    content = _content(data, (_INTEGER,))
    if not content:
        raise ValueError("empty INTEGER")
    if content[0] & 0x80:
        raise ValueError(f"negative INTEGER: {data.hex()}")
    if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
        raise ValueError(f"INTEGER with a superfluous zero: {data.hex()}")
    return int.from_bytes(content, "big")


def text(data: bytes) -> str:
    """A DER character string of ASCII letters. Raises ValueError (UnicodeDecodeError is one)."""
    return _content(data, _STRING_TAGS).decode("ascii")


def octets(data: bytes, size: int) -> bytes:
    """``size`` bytes, raw or wrapped in one OCTET STRING. Raises ValueError."""
    if len(data) == size:
        return data
    content = _content(data, (_OCTET_STRING,))
    if len(content) != size:
        raise ValueError(f"expected {size} bytes, found {len(content)}")
    return content


def encode_integer(value: int) -> bytes:
    """A small non-negative number as DER INTEGER."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((_INTEGER, len(content))) + content


def encode_ia5(value: str) -> bytes:
    """ASCII text of less than 128 characters as DER IA5String."""
    content = value.encode("ascii")
    return bytes((0x16, len(content))) + content
