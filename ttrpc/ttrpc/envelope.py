# SPDX-License-Identifier: Apache-2.0
"""The two messages that ttrpc itself defines, in protobuf encoding.

::

    Request  { string service = 1; string method = 2; bytes payload = 3; int64 timeout_nano = 4;
               repeated KeyValue{ string key = 1; string value = 2; } metadata = 5; }
    Response { google.rpc.Status{ int32 code = 1; string message = 2; } status = 1; bytes payload = 2; }

Written by hand: so small a codec costs less memory than generated code, is tied to no protobuf version, and does not
register ``google.rpc.Status``, which other packages register too. Unknown fields are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_METADATA: Final = 128
"""Most metadata entries of one request; without a limit, two bytes sent would cost the receiver hundreds."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class EnvelopeError(ValueError):
    """Bytes that are not the message expected."""


class Request(NamedTuple):
    """What a client asks for. ``timeout_nano`` is relative, 0 is none."""

    service: str
    method: str
    payload: bytes = b""
    timeout_nano: int = 0
    metadata: Mapping[str, str] = {}


class Response(NamedTuple):
    """What a server answers; ``code`` 0 is success."""

    code: int = 0
    message: str = ""
    payload: bytes = b""


def encode_request(request: Request) -> bytes:
    """Serialised ``Request``; metadata keys are sent in lower case."""
    out = bytearray()
    _put_bytes(out, 1, request.service.encode())
    _put_bytes(out, 2, request.method.encode())
    _put_bytes(out, 3, request.payload)
    _put_varint(out, 4, request.timeout_nano)
    for key, value in request.metadata.items():
        entry = bytearray()
        _put_bytes(entry, 1, key.lower().encode())
        _put_bytes(entry, 2, value.encode())
        _put_bytes(out, 5, bytes(entry), always=True)
    return bytes(out)


def decode_request(data: bytes) -> Request:
    """Parses a ``Request``. Metadata keys become lower case; of equal ones the first counts.

    Raises:
        EnvelopeError: not a ``Request``, text that is not UTF-8, or more metadata than :data:`MAX_METADATA`.
    """
    service, method, payload, timeout = "", "", b"", 0
    metadata: dict[str, str] = {}
    entries = 0
    for number, value in _fields(data):
        if number == 1:
            service = _text(value)
        elif number == 2:
            method = _text(value)
        elif number == 3:
            payload = _raw(value)
        elif number == 4:
            timeout = _signed(value)
        elif number == 5:
            entries += 1
            if entries > MAX_METADATA:
                raise EnvelopeError(f"more than {MAX_METADATA} metadata entries")
            key, text = _key_value(_raw(value))
            metadata.setdefault(key.lower(), text)
    return Request(service, method, payload, timeout, metadata)


def encode_response(response: Response) -> bytes:
    """Serialised ``Response``; success has no status."""
    out = bytearray()
    if response.code:
        status = bytearray()
        _put_varint(status, 1, response.code)
        _put_bytes(status, 2, response.message.encode(errors="backslashreplace"))
        _put_bytes(out, 1, bytes(status))
    _put_bytes(out, 2, response.payload)
    return bytes(out)


def decode_response(data: bytes) -> Response:
    """Parses a ``Response``; text that is not UTF-8 is replaced, as the status matters more than its wording.

    Raises:
        EnvelopeError: not a ``Response``.
    """
    code, message, payload = 0, b"", b""
    for number, value in _fields(data):
        if number == 1:
            for inner, part in _fields(_raw(value)):
                if inner == 1:
                    code = _signed(part)
                elif inner == 2:
                    message = _raw(part)
        elif number == 2:
            payload = _raw(value)
    return Response(code, message.decode(errors="replace"), payload)


def _key_value(data: bytes) -> tuple[str, str]:
    key = text = ""
    for number, value in _fields(data):
        if number == 1:
            key = _text(value)
        elif number == 2:
            text = _text(value)
    return key, text


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values: ``bytes`` for length-delimited ones, ``int`` (unsigned) for the others."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        value: int | bytes
        if not 0 < number < 1 << 29:
            raise EnvelopeError(f"field number {number}")
        if wire_type == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire_type == _BYTES:
                size, at = _varint(data, at)
            elif wire_type in (_FIXED32, _FIXED64):
                size = 4 if wire_type == _FIXED32 else 8
            else:
                raise EnvelopeError(f"wire type {wire_type}")
            value = data[at : at + size]
            if len(value) != size:
                raise EnvelopeError(f"field {number} is cut off")
            at += size
            if wire_type != _BYTES:
                value = int.from_bytes(value, "little")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The 64-bit varint at ``at`` and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise EnvelopeError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise EnvelopeError("a number is longer than 64 bits")


def _raw(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise EnvelopeError("a number where bytes were expected")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _raw(value).decode()
    except UnicodeDecodeError as error:
        raise EnvelopeError("text that is not UTF-8") from error


def _signed(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise EnvelopeError("bytes where a number was expected")
    return value - (1 << 64) if value >> 63 else value


def _put_varint(out: bytearray, number: int, value: int) -> None:
    if value:
        _append_varint(out, number << 3 | _VARINT)
        _append_varint(out, value & 0xFFFF_FFFF_FFFF_FFFF)


def _put_bytes(out: bytearray, number: int, value: bytes, *, always: bool = False) -> None:
    if value or always:
        _append_varint(out, number << 3 | _BYTES)
        _append_varint(out, len(value))
        out += value


def _append_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
