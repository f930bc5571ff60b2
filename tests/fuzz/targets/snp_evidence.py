# SPDX-License-Identifier: Apache-2.0
"""Evidence and status documents, as files from anywhere."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from parma_snp import evidence as documents
from parma_snp import status as statuses
from parma_snp.anchors import AMD, bundled
from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence
from parma_snp.expected import Endorser, Expected
from parma_snp.report import MILAN, REPORT_SIZE

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CHAIN = CertificateChain(bundled("ask", MILAN), bundled("ask", MILAN), bundled("ark", MILAN)).to_pem()
_FULL = Evidence("snp", b"package policy\n", bytes(REPORT_SIZE), _CHAIN, endorsement=b"\xd2\x84\x40\xa0\x40\x40")
_EXPECTED = Expected(bytes(32), Endorser("did:x509:0:sha256:x::eku:1.2", "parma-uvm", 1), bytes(64))
SEEDS = [
    _FULL.dumps().encode(),
    Evidence("emulated", b"", bytes(REPORT_SIZE)).dumps().encode(),
    Evidence("none", b"").dumps().encode(),
    statuses.unattested(bytes(32), now=_NOW).dumps().encode(),
    statuses.failed("snp", bytes(32), [SnpError("sig.invalid", "x")], now=_NOW, evidence=_FULL).dumps().encode(),
]


def target(data: bytes) -> None:
    """What parses survives writing and reading, and no garbage is accepted as evidence."""
    with contextlib.suppress(SnpError):
        evidence = documents.parse(data)
        assert documents.parse(evidence.dumps().encode()) == evidence
        verdict = documents.verify_evidence(evidence, now=_NOW, expected=_EXPECTED, roots=AMD)
        assert not verdict.authentic
    with contextlib.suppress(SnpError):
        status = statuses.parse(data)
        assert statuses.parse(status.dumps().encode()).to_json() == status.to_json()
        assert statuses.render(status)
