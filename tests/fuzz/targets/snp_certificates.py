# SPDX-License-Identifier: Apache-2.0
"""Certificates as a platform hands them over: PEM, DER, certificate table, host-amd-cert document, CRL."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from datetime import UTC, datetime

from parma_snp import certtable
from parma_snp.anchors import AMD, bundled
from parma_snp.certificates import CertificateChain, check_revocation, verify_chain
from parma_snp.errors import SnpError
from parma_snp.report import MILAN
from parma_snp.sources import read_certificates

_ARK, _ASK, _ASVK = (bundled(kind, MILAN) for kind in ("ark", "ask", "asvk"))
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _table(*entries: tuple[str, bytes]) -> bytes:
    headers, offset = b"", 24 * (len(entries) + 1)
    for guid, data in entries:
        headers += uuid.UUID(guid).bytes + offset.to_bytes(4, "little") + len(data).to_bytes(4, "little")
        offset += len(data)
    return headers + bytes(24) + b"".join(data for _, data in entries)


_PEM = CertificateChain(_ASK, _ASK, _ARK).to_pem()
_END = "-----END CERTIFICATE-----\n"
_LEAF, _AUTHORITIES = _PEM.partition(_END)[0] + _END, _PEM.partition(_END)[2]
_DOCUMENT = {"vcekCert": _LEAF, "tcbm": "7308000000000003", "certificateChain": _AUTHORITIES, "cacheControl": "86400"}
SEEDS = [
    _PEM.encode(),
    _ASK,
    _ASVK,
    _table((certtable.VCEK, _ASK), (certtable.ASK, _ASK), (certtable.ARK, _ARK)),
    _table((certtable.VLEK, _ASVK)),
    bytes(24),
    json.dumps(_DOCUMENT).encode(),
    base64.b64encode(json.dumps(_DOCUMENT).encode()),
]


def target(data: bytes) -> None:
    """Whatever is read as a chain is verified, with and without itself as a CRL; never accepted."""
    with contextlib.suppress(SnpError):
        certtable.parse(data)
    with contextlib.suppress(SnpError):
        chain = read_certificates(data)
        with contextlib.suppress(SnpError):
            verify_chain(chain, AMD, _NOW)
    with contextlib.suppress(SnpError):
        check_revocation(CertificateChain(_ASK, _ASK, _ARK, data), _NOW, "require")
    with contextlib.suppress(SnpError):
        verify_chain(CertificateChain(data, _ASK, _ARK), AMD, _NOW)
