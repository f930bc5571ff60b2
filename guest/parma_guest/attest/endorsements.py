# SPDX-License-Identifier: Apache-2.0
"""What the host hands in for containers to pass on: certificates of its processor, the endorsement of the guest image.

Both are signed by others (AMD, the image's issuer), and whoever relies on them checks the signatures; a host that
hands in something else only spoils its own containers' evidence. Here their form is checked, so that no container's
parser sees what is not even that.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Final, NamedTuple

from parma_guest.attest import certs
from parma_wire.errors import Malformed

MAX_ENDORSEMENT: Final = 32 * 1024
"""Bytes of each."""

_HOST_AMD_CERT_KEYS: Final = ("vcekCert", "tcbm", "certificateChain", "cacheControl")
_PEM: Final = re.compile(
    r"\s*(-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*){1,4}", re.ASCII
)
_TCBM: Final = re.compile(r"[0-9A-Fa-f]{1,16}", re.ASCII)
_CACHE_CONTROL: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_COSE_SIGN1: Final = b"\xd2\x84"
"""CBOR: tag 18, an array of four."""


class Endorsements(NamedTuple):
    """Both as base64 text, as containers get them; empty where the host gave none."""

    host_amd_cert: str = ""
    """Of the cloud's host-amd-cert JSON: the four keys above, all texts."""
    reference_info: str = ""
    """Of a COSE_Sign1."""


def parse(host_supplied_cert: bytes, host_supplied_reference_info: bytes) -> Endorsements:
    """What is well formed, written anew. Raises `Malformed`."""
    return Endorsements(_cert(host_supplied_cert), _reference_info(host_supplied_reference_info))


def host_amd_cert(endorsements: Endorsements) -> dict[str, str]:
    """The JSON of endorsements that `parse` has made; empty when there is none."""
    if not endorsements.host_amd_cert:
        return {}
    found: dict[str, str] = json.loads(base64.b64decode(endorsements.host_amd_cert))
    return found


def _cert(data: bytes) -> str:
    if not data:
        return ""
    _limit(data)
    try:
        document = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Malformed("host_amd_cert is not JSON") from error
    if not isinstance(document, dict) or sorted(document) != sorted(_HOST_AMD_CERT_KEYS):
        raise Malformed("host_amd_cert has other keys", expected=", ".join(_HOST_AMD_CERT_KEYS))
    patterns = dict(zip(_HOST_AMD_CERT_KEYS, (_PEM, _TCBM, _PEM, _CACHE_CONTROL), strict=True))
    for key, pattern in patterns.items():
        if not isinstance(document[key], str) or not pattern.fullmatch(document[key]):
            raise Malformed(f"host_amd_cert has a malformed {key}")
    try:
        certs.table(document)
    except ValueError as error:
        raise Malformed("host_amd_cert has a malformed certificate") from error
    return _base64(json.dumps({key: document[key] for key in _HOST_AMD_CERT_KEYS}).encode())


def _reference_info(data: bytes) -> str:
    if not data:
        return ""
    _limit(data)
    if not data.startswith(_COSE_SIGN1):
        raise Malformed("reference_info is no COSE_Sign1")
    return _base64(data)


def _limit(data: bytes) -> None:
    if len(data) > MAX_ENDORSEMENT:
        raise Malformed("a document is too large", expected=f"at most {MAX_ENDORSEMENT} bytes")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
