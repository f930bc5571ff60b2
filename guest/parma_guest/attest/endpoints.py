# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoints that attestation clients in containers expect, as a function from request to response.

Port 8080: those of the secure-key-release sidecar of confidential container groups. Port 8006: those of the
Confidential Containers API server. What would need a service outside of the VM (a key vault, an attestation service, a
verifier) is answered "not configured"; nothing is made up in its place.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from parma_guest.attest import channel
from parma_guest.attest.endorsements import Endorsements, host_amd_cert
from parma_guest.attest.http import Refused, Request, Response
from parma_guest.sevguest import REPORT_DATA_SIZE
from parma_wire.errors import ParmaError

SIDECAR_PORT: Final = 8080
API_SERVER_PORT: Final = 8006

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class Backend(Protocol):
    """What the enforcer gives."""

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """1184 bytes; raises `ParmaError`."""

    def key(self, context: bytes) -> bytes:
        """32 bytes; raises `ParmaError`."""


class _Call(NamedTuple):
    request: Request
    backend: Backend
    endorsements: Endorsements


def ports(paths: frozenset[str]) -> tuple[int, ...]:
    """Where someone must listen so that these paths can be reached."""
    return tuple(sorted({route.port for path, route in _ROUTES.items() if path in paths}))


def respond(
    port: int, request: Request, allowed: frozenset[str], backend: Backend, endorsements: Endorsements
) -> Response:
    """The answer to a complete request that came to ``port``; ``allowed`` are the paths that the policy lists."""
    try:
        return _route(port, request, allowed).handle(_Call(request, backend, endorsements))
    except Refused as refused:
        return error(refused.status, refused.text)
    except ParmaError as problem:
        return error(503, problem.message)


def _route(port: int, request: Request, allowed: frozenset[str]) -> _Route:
    route = _ROUTES.get(request.path)
    if route is None or route.port != port:
        raise Refused(404, "there is no such endpoint")
    if not route.always and request.path not in allowed:
        raise Refused(403, f"the execution policy does not let this container reach {request.path}")
    if request.method != route.method:
        raise Refused(405, f"{request.path} takes {route.method}")
    return route


def error(status: int, text: str) -> Response:
    """An error as both kinds of clients read it."""
    return _json({"error": text}, status=status)


# -- the sidecar's --------------------------------------------------------------------------------------------------


def _status(_call: _Call) -> Response:
    return _json({"message": "Status OK"})


def _attest_raw(call: _Call) -> Response:
    return _json({"report": _sidecar_report(call).hex()})


def _attest_combined(call: _Call) -> Response:
    certificates = host_amd_cert(call.endorsements)
    combined = {
        "endorsed_tcb": certificates.get("tcbm", ""),
        "endorsements": _base64((certificates.get("vcekCert", "") + certificates.get("certificateChain", "")).encode()),
        "evidence": _base64(_sidecar_report(call)),
        "uvm_endorsements": call.endorsements.reference_info,
    }
    # As documented, and as newer sidecars answer: the same once more, as a text.
    return _json({**combined, "combined_report": json.dumps(combined)})


def _attest_maa(call: _Call) -> Response:
    document = _document(call.request)
    _text(document, "maa_endpoint")
    _runtime_data(document)
    raise _not_configured("an attestation service")


def _key_release(call: _Call) -> Response:
    document = _document(call.request)
    for name in ("maa_endpoint", "akv_endpoint", "kid"):
        _text(document, name)
    if not isinstance(document.get("access_token", ""), str):
        raise Refused(400, "access_token is not a string")
    raise _not_configured("a key vault")


def _key_derive(call: _Call) -> Response:
    context = _decode(_document(call.request), "context")
    if len(context) > channel.MAX_CONTEXT:
        raise Refused(400, f"context is too large: at most {channel.MAX_CONTEXT} bytes")
    return _json({"key": _base64(call.backend.key(context))})


def _sidecar_report(call: _Call) -> bytes:
    """REPORT_DATA is a hash and zeros, so it has the form of no other protocol's."""
    digest = hashlib.sha256(_runtime_data(_document(call.request))).digest()
    return call.backend.report(digest.ljust(REPORT_DATA_SIZE, b"\0"), 0)


# -- the API server's -----------------------------------------------------------------------------------------------


def _aa_evidence(call: _Call) -> Response:
    query = _query(call.request)
    if "runtime_data" not in query:
        raise Refused(400, "runtime_data is missing")
    data = _unescape(query["runtime_data"])
    encoding = query.get("encoding")
    if encoding == "base64":
        data = _decode_url_safe(data)
    elif encoding is not None:
        raise Refused(400, "encoding is unknown: only base64 is")
    if len(data) > REPORT_DATA_SIZE:
        raise Refused(400, f"runtime_data is too large: at most {REPORT_DATA_SIZE} bytes")
    from parma_guest.attest.evidence import snp_evidence  # seldom needed

    report = call.backend.report(data.ljust(REPORT_DATA_SIZE, b"\0"), 0)
    certificates = host_amd_cert(call.endorsements)
    return _octets(snp_evidence(report, certificates.get("vcekCert", "")))


def _aa_token(call: _Call) -> Response:
    if "token_type" not in _query(call.request):
        raise Refused(400, "token_type is missing")
    raise _not_configured("a verifier")


# -- parts ----------------------------------------------------------------------------------------------------------


def _not_configured(what: str) -> Refused:
    return Refused(501, f"not configured: this needs {what} outside of the VM, and there is none")


def _document(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(request.body.decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise Refused(400, "invalid request format: not a JSON document") from None
    if not isinstance(document, dict):
        raise Refused(400, "invalid request format: not a JSON object")
    return document


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"invalid request format: {name} is missing")
    return value


def _runtime_data(document: dict[str, Any]) -> bytes:
    _text(document, "runtime_data")
    return _decode(document, "runtime_data")


def _decode(document: dict[str, Any], name: str) -> bytes:
    value = document.get(name)
    if not isinstance(value, str):
        raise Refused(400, f"invalid request format: {name} is missing")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, f"{name} is not base64") from None


def _decode_url_safe(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "runtime_data is not URL-safe base64") from None


def _query(request: Request) -> dict[str, str]:
    """Names and values still encoded, each name once."""
    pairs = [part.partition("=")[::2] for part in request.query.split("&") if part]
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused(400, "a parameter is given twice")
    return dict(pairs)


def _unescape(text: str) -> bytes:
    """A value of a query: percent-encoding, and a plus sign for a space."""
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.replace("+", " ").encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(document: object, *, status: int = 200) -> Response:
    return Response(status, json.dumps(document).encode())


def _octets(document: object) -> Response:
    return Response(200, json.dumps(document).encode(), "application/octet-stream")


class _Route(NamedTuple):
    port: int
    method: str
    handle: Callable[[_Call], Response]
    always: bool = False
    """Needs no mention in the policy: it answers only where something else is reached, and tells nothing."""


_ROUTES: Final = {
    "/status": _Route(SIDECAR_PORT, "GET", _status, always=True),
    "/attest/raw": _Route(SIDECAR_PORT, "POST", _attest_raw),
    "/attest/combined": _Route(SIDECAR_PORT, "POST", _attest_combined),
    "/attest/maa": _Route(SIDECAR_PORT, "POST", _attest_maa, always=True),
    "/key/release": _Route(SIDECAR_PORT, "POST", _key_release),
    "/key/derive": _Route(SIDECAR_PORT, "POST", _key_derive),
    "/aa/evidence": _Route(API_SERVER_PORT, "GET", _aa_evidence),
    "/aa/token": _Route(API_SERVER_PORT, "GET", _aa_token),
}
