# SPDX-License-Identifier: Apache-2.0
"""Recorded cases: did:x509 resolutions, and what of UVM endorsements the envelope alone decides."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from parma_cose import did, envelope
from parma_cose.chain import verify_chain
from parma_cose.errors import CoseError

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared/vectors/snp beside the checkout")

# What the envelope cannot know: what the reader expects of issuer, feed, version and measurement, and of the payload.
READERS_PART = {"issuer", "feed", "svn", "measurement", "format"}


def _cases() -> list[Any]:
    file = VECTORS / "didx509" / "test-vectors.json"
    return json.loads(file.read_text()) if file.is_file() else []


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("case", _cases(), ids=lambda case: str(case["id"]))
def test_did_resolves_as_recorded(case: dict[str, Any]) -> None:
    chain = [_decode(certificate) for certificate in case["input"]["chain"]]
    if "document" in case["output"]:
        assert did.resolve(case["input"]["did"], verify_chain(chain)) == case["output"]["document"]
        return
    with pytest.raises(CoseError):
        did.resolve(case["input"]["did"], verify_chain(chain))


@pytest.mark.parametrize("folder", sorted((VECTORS / "uvm").glob("*")), ids=lambda folder: folder.name)
def test_endorsement_envelope_verifies_as_recorded(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    reasons = {reason.removeprefix("uvm.") for reason in case["reasons"]}
    signed, code = _verified((folder / "endorsement.cose").read_bytes())
    if case["expect"] == "accept":
        assert signed is not None
        assert (signed.issuer, signed.feed) == (case["policy"]["issuer"], case["policy"]["feed"])
    else:
        assert code in reasons or (signed is not None and reasons & READERS_PART)


def _verified(data: bytes) -> tuple[envelope.Signed | None, str]:
    try:
        return envelope.verify(data), ""
    except CoseError as error:
        return None, error.code
