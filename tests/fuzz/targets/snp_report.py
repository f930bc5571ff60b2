# SPDX-License-Identifier: Apache-2.0
"""Attestation reports: parsed, and judged under real certificates."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from parma_snp import kds
from parma_snp.anchors import bundled
from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_snp.expected import Expected
from parma_snp.report import GENOA, MILAN, PRODUCTS, REPORT_SIZE, Report, parse
from parma_snp.verify import verify


def _seed(version: int) -> bytes:
    data = bytearray(REPORT_SIZE)
    data[0:4] = version.to_bytes(4, "little")
    data[0x08:0x10] = (0x30000).to_bytes(8, "little")
    data[0x34] = 1
    data[0x188:0x18B] = bytes((0x19, 0x01, 0x01)) if version >= 3 else bytes(3)
    return bytes(data)


SEEDS = [_seed(version) for version in (2, 3, 4, 5)]
# A chain in which nothing is what its place demands; the interesting part here is the report.
_CHAIN = CertificateChain(bundled("ask", MILAN), bundled("ask", MILAN), bundled("ark", MILAN))
_EXPECTED = Expected(bytes(32), bytes(48), bytes(64))
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def target(data: bytes) -> None:
    """Every field can be read of whatever parses; nothing unsigned is accepted."""
    with contextlib.suppress(SnpError):
        report = parse(data)
        for name in dir(Report):
            getattr(report, name)
        for product in PRODUCTS:
            assert str(report.tcb("reported", product))
        with contextlib.suppress(SnpError):
            assert kds.vcek_url(report, GENOA if report.cpuid is None else None).startswith(kds.SERVICE)
    assert not verify(data, _CHAIN, now=_NOW, expected=_EXPECTED).authentic
