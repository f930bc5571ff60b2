# SPDX-License-Identifier: Apache-2.0
"""One request of a container: what is accepted, and that nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest.attest.http import CONTINUE, MAX_BODY, MAX_HEAD, Reader, Refused, Request, Response

GOOD = b"POST /attest/raw?a=b HTTP/1.1\r\nHost: localhost:8080\r\nContent-Length: 4\r\nX-Y: \t z \r\n\r\nbody"


def read(data: bytes, size: int = 1 << 20) -> Request | None:
    reader = Reader()
    found = None
    for start in range(0, len(data), size):
        assert found is None
        found, _ = reader.feed(data[start : start + size])
    return found


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_request_may_come_in_any_pieces(size: int) -> None:
    assert read(GOOD, size) == ("POST", "/attest/raw", "a=b", b"body")


@given(st.integers(0, len(GOOD) - 1))
def test_a_part_of_a_request_is_none_yet(length: int) -> None:
    assert read(GOOD[:length]) is None


def test_a_body_is_optional_and_old_clients_need_no_host() -> None:
    assert read(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n") == ("GET", "/status", "", b"")
    assert read(b"GET /status HTTP/1.0\r\n\r\n") == ("GET", "/status", "", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GOOD + b"x", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n", 400),
        (b"A" * (MAX_HEAD + 1), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_what_is_not_needed_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        read(data)
    assert caught.value.status == status


def test_a_client_that_waits_for_a_go_ahead_gets_one() -> None:
    reader = Reader()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert reader.feed(head) == (None, CONTINUE)
    assert reader.feed(b"a") == (None, b"")
    assert reader.feed(b"b")[0] == Request("POST", "/", "", b"ab")


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_do_anything_but_be_read_or_refused(data: bytes, size: int) -> None:
    reader = Reader()
    with suppress(Refused):
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])


def test_an_answer_says_its_length_and_that_it_is_the_last() -> None:
    head, _, body = Response(404, b"{}").pack().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Content-Length: 2" in head
    assert b"Connection: close" in head
    assert body == b"{}"
