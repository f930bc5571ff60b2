# SPDX-License-Identifier: Apache-2.0
"""Endorsements of guest images: signed ones of both generations, and what is left when their signature is cut off."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from parma_cose.cbor import encode
from parma_snp import endorsement
from parma_snp.errors import SnpError
from tests.snp.pki import SIGNED_AT, make_issuer

_NOW = datetime(2026, 6, 1, tzinfo=UTC)
_ISSUER = make_issuer()
_MEASUREMENT = bytes(range(48))
_SIGNED = endorsement.sign(
    _MEASUREMENT, svn=7, feed="parma-uvm", issuer=_ISSUER.did, signer=_ISSUER.signer, signed_at=SIGNED_AT
)
SEEDS = [_SIGNED, encode([b"", {}, b"", b""]), b"\xd2\x84\x40\xa0\x40\x40"]


def target(data: bytes) -> None:
    """Nothing that differs from what was signed is read as signed by our issuer."""
    with contextlib.suppress(SnpError):
        endorsement.claimed_ledgers(data)
    with contextlib.suppress(SnpError):
        found = endorsement.read(data, now=_NOW)
        assert (found.issuer, found.svn, found.measurement) == (_ISSUER.did, 7, _MEASUREMENT)
