# SPDX-License-Identifier: Apache-2.0
"""A small, strict HTTP/1.1 server's view of one request on a connection (RFC 9112); every byte is the container's.

One request for each connection, which is then closed. What is not needed is refused: other encodings than a length,
folded headers, repeated lengths, bodies with GET.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HEAD: Final = 8 * 1024
MAX_BODY: Final = 64 * 1024

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,4095}) HTTP/1\.([01])")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Refused(Exception):  # an answer, not a failure of ours
    """The request gets this status and nothing else."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Request(NamedTuple):
    """A complete request; ``query`` is what follows the question mark."""

    method: str
    path: str
    query: str
    body: bytes


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"

    def pack(self) -> bytes:
        """With its header."""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + self.body


class _Head(NamedTuple):
    method: str
    path: str
    query: str
    length: int
    expects_continue: bool


class Reader:
    """Collects one request from pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> tuple[Request | None, bytes]:
        """The request, once it is complete, and what to send meanwhile. Raises `Refused`."""
        self._buffer += data
        interim = b""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise Refused(431, "the request's header is too large")
            if end < 0:
                return None, b""
            self._head = _parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head.expects_continue and len(self._buffer) < self._head.length:
                interim = CONTINUE
        if len(self._buffer) < self._head.length:
            return None, interim
        if len(self._buffer) > self._head.length:
            raise Refused(400, "more than one request on a connection")
        return Request(self._head.method, self._head.path, self._head.query, bytes(self._buffer)), b""


def _parse_head(data: bytes) -> _Head:
    first, *lines = data.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise Refused(400, "the request line is malformed")
    headers = _headers(lines)
    if found[3] == b"1" and len(headers.get(b"host", ())) != 1:
        raise Refused(400, "there must be one Host")
    if b"transfer-encoding" in headers:
        raise Refused(501, "a body must have a Content-Length")
    path, _, query = found[2].decode("ascii").partition("?")
    expects = headers.get(b"expect", [])
    if expects and [value.lower() for value in expects] != [b"100-continue"]:
        raise Refused(400, "Expect is malformed")
    return _Head(found[1].decode("ascii"), path, query, _length(headers), bool(expects))


def _headers(lines: list[bytes]) -> dict[bytes, list[bytes]]:
    headers: dict[bytes, list[bytes]] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Refused(400, "a header is malformed")
        headers.setdefault(found[1].lower(), []).append(found[2])
    return headers


def _length(headers: dict[bytes, list[bytes]]) -> int:
    given = headers.get(b"content-length", [b"0"])
    if len(given) != 1 or not _LENGTH.fullmatch(given[0]):
        raise Refused(400, "Content-Length is malformed")
    length = int(given[0])
    if length > MAX_BODY:
        raise Refused(413, f"the body is too large: at most {MAX_BODY} bytes")
    return length
