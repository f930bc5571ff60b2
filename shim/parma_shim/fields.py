# SPDX-License-Identifier: Apache-2.0
"""Just enough of the protobuf wire format for ``start``, ``delete`` and ``-info`` (tier 0).

Importing the protobuf library costs several times what these commands take as a whole. Three small messages are
read here (google.protobuf.Any, BootstrapParams, the runtime's Options) and two written (DeleteResponse,
RuntimeInfo); the tests hold both directions against the library.
"""

VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5

Field = tuple[int, int, int | bytes]
"""Field number, wire type, value: an ``int`` for VARINT, FIXED32 and FIXED64, ``bytes`` for LENGTH."""


def decode(data: bytes) -> list[Field] | None:
    """All fields in order, or ``None`` when the bytes are not a message (groups are not accepted)."""
    fields: list[Field] = []
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if position < 0 or tag >> 3 == 0:
            return None
        kind = tag & 7
        value: int | bytes
        if kind == VARINT:
            value, position = _varint(data, position)
        elif kind == LENGTH:
            size, position = _varint(data, position)
            if position < 0 or position + size > len(data):
                return None
            value = data[position : position + size]
            position += size
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value = int.from_bytes(data[position : position + size], "little")
            position += size
            if position > len(data):
                return None
        else:
            return None
        if position < 0:
            return None
        fields.append((tag >> 3, kind, value))
    return fields


def text(fields: list[Field], number: int) -> str | None:
    """The last LENGTH field of that number as text: empty when absent, ``None`` when it is not UTF-8."""
    found = ""
    for field, kind, value in fields:
        if field == number and kind == LENGTH and isinstance(value, bytes):
            try:
                found = value.decode()
            except UnicodeDecodeError:
                return None
    return found


def blobs(fields: list[Field], number: int) -> list[bytes]:
    """Every LENGTH field of that number."""
    return [value for field, kind, value in fields if field == number and kind == LENGTH and isinstance(value, bytes)]


def number(fields: list[Field], wanted: int) -> int:
    """The last VARINT field of that number, as a signed 64-bit integer; 0 when absent."""
    found = 0
    for field, kind, value in fields:
        if field == wanted and kind == VARINT and isinstance(value, int):
            found = value - (1 << 64) if value >> 63 else value
    return found


def varint(value: int) -> bytes:
    """A non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer_field(number: int, value: int) -> bytes:
    """A VARINT field; nothing for the default value 0, as proto3 has it."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def bytes_field(number: int, value: bytes | str) -> bytes:
    """A LENGTH field; nothing for an empty one, as proto3 has it."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | LENGTH) + varint(len(raw)) + raw if raw else b""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The value and the position after it; a position of -1 says the bytes end too early or go on too long."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    return 0, -1
