# SPDX-License-Identifier: Apache-2.0
"""What a container sends to its attestation endpoints: a JSON answer, whatever it is."""

from __future__ import annotations

import json

from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.endpoints import API_SERVER_PORT, SIDECAR_PORT, error, respond
from parma_guest.attest.http import Reader, Refused
from parma_policy.attestation import NAMES
from parma_wire.errors import Unavailable

_BODY = b'{"runtime_data": "YWJj", "context": "YQ==", "maa_endpoint": "m", "akv_endpoint": "a", "kid": "k"}'

SEEDS = (
    *(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path, len(_BODY), _BODY)
        for path in (b"/attest/raw", b"/attest/combined", b"/attest/maa", b"/key/release", b"/key/derive")
    ),
    b"GET /aa/evidence?runtime_data=a%20b&encoding=base64 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /aa/token?token_type=kbs HTTP/1.0\r\n\r\n",
    b"POST /attest/raw HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
)


class _NoProcessor:
    def report(self, report_data: bytes, vmpl: int) -> bytes:
        assert len(report_data) == 64
        assert vmpl == 0
        raise Unavailable("there is none")

    def key(self, context: bytes) -> bytes:
        assert len(context) <= 64
        return bytes(32)


def target(data: bytes) -> None:
    """One connection, to either port."""
    reader = Reader()
    try:
        request, _ = reader.feed(data)
    except Refused as refused:
        json.loads(error(refused.status, refused.text).body)
        return
    if request is None:
        return
    for port in (SIDECAR_PORT, API_SERVER_PORT):
        response = respond(port, request, frozenset(NAMES), _NoProcessor(), Endorsements())
        assert response.pack().endswith(response.body)
        json.loads(response.body)
