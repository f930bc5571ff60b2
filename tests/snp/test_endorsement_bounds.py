# SPDX-License-Identifier: Apache-2.0
"""Endorsements at their bounds: versions, sizes, clocks, and receipts of ledgers that are trusted or not."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_cose import algorithms, cbor, headers, signing
from parma_cose.cbor import Label, Tag, Value
from parma_cose.errors import CoseError
from parma_cose.sign1 import TAG
from parma_cose.sign1 import parse as parse_envelope
from parma_snp import endorsement
from parma_snp.endorsement import FEED
from parma_snp.errors import SnpError
from tests.cose.chains import Ledger, with_receipts
from tests.snp.conftest import MEASUREMENT
from tests.snp.pki import SIGNED_AT, Issuer, make_issuer

LATER = SIGNED_AT + timedelta(days=365)
LARGEST_VERSION = 9_223_372_036_854_775_807


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return make_issuer()


def signed(issuer: Issuer, svn: int = 7) -> bytes:
    return endorsement.sign(
        MEASUREMENT, svn=svn, feed=FEED, issuer=issuer.did, signer=issuer.signer, signed_at=SIGNED_AT
    )


def in_json(issuer: Issuer, version: str, claims: dict[Label, Value] | None = None, **changes: Any) -> bytes:
    """The older generation. ``claims``: CWT claims in place of its own headers; ``changes``: ``media``, ``dated``."""
    protected: dict[Label, Value] = {
        headers.ALG: -35,
        headers.CONTENT_TYPE: changes.get("media", "application/json"),
        headers.X5CHAIN: list(issuer.signer.ders),
    }
    if claims is None:
        protected |= {headers.LEGACY_ISSUER: issuer.did, headers.LEGACY_FEED: FEED}
        if changes.get("dated", True):
            protected[headers.LEGACY_SIGNING_TIME] = int(SIGNED_AT.timestamp())
    else:
        protected[headers.CWT_CLAIMS] = {
            headers.CLAIM_ISSUER: issuer.did,
            headers.CLAIM_SUBJECT: FEED,
            headers.CLAIM_ISSUED_AT: int(SIGNED_AT.timestamp()),
            **claims,
        }
    content = {"x-ms-sevsnpvm-guestsvn": version, "x-ms-sevsnpvm-launchmeasurement": MEASUREMENT.hex()}
    return signing.sign_map(protected, json.dumps(content).encode(), issuer.signer.key, algorithms.BY_NUMBER[-35])


def refused(data: bytes, code: str, match: str, *, now: datetime = LATER, keys: tuple[bytes, ...] = ()) -> SnpError:
    with pytest.raises(SnpError, match=match) as caught:
        endorsement.read(data, now=now, ledger_keys=keys)
    assert caught.value.code == code
    return caught.value


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("svn", [0, 1, LARGEST_VERSION])
def test_every_version_of_63_bits_is_signed_and_read_in_both_generations(issuer: Issuer, svn: int) -> None:
    for data in (signed(issuer, svn), in_json(issuer, str(svn))):
        assert endorsement.read(data, now=LATER).svn == svn


def test_a_larger_version_is_neither_signed_nor_read(issuer: Issuer) -> None:
    for svn in (LARGEST_VERSION + 1, -1):
        with pytest.raises(SnpError) as caught:
            signed(issuer, svn)
        assert caught.value.code == "usage"
    for text in (f"{LARGEST_VERSION}0", "0" * 20, ""):
        refused(in_json(issuer, text), "uvm.format", "guestsvn is not a number")


def test_a_version_in_the_claims_is_the_one_in_the_document(issuer: Issuer) -> None:
    assert endorsement.read(in_json(issuer, "7", {headers.CLAIM_SVN: 7}), now=LATER).svn == 7
    assert endorsement.read(in_json(issuer, "7", {}), now=LATER).svn == 7
    error = refused(in_json(issuer, "7", {headers.CLAIM_SVN: 8}), "uvm.format", "gives two versions")
    assert error.found == "7, 8"


# -- form and time ---------------------------------------------------------------------------------------------------


def test_an_endorsement_has_at_most_256_kibibytes(issuer: Issuer) -> None:
    error = refused(bytes(256 * 1024 + 1), "uvm.format", "too large")
    assert (error.expected, error.found) == ("at most 262144 bytes", "262145")
    padded = with_receipts(signed(issuer), bytes(256 * 1024))
    refused(padded, "uvm.format", "too large")
    refused(bytes(256 * 1024), "uvm.format", "^(?!.*too large)")


def test_a_document_of_another_kind_is_no_endorsement(issuer: Issuer) -> None:
    error = refused(in_json(issuer, "7", media="application/cbor"), "uvm.format", "not an endorsement")
    assert (error.expected, error.found) == ("application/json or a hash envelope", "application/cbor")


def test_what_is_hashed_is_said_to_be_bytes(issuer: Issuer) -> None:
    """Others read our endorsements, too."""
    found = parse_envelope(signed(issuer)).headers
    assert (found.preimage_content_type, found.payload_hash_algorithm) == ("application/octet-stream", -43)


def test_an_endorsement_says_when_it_was_signed(issuer: Issuer) -> None:
    refused(in_json(issuer, "7", dated=False), "uvm.format", "does not say when it was signed")


def test_two_clocks_may_differ_by_ten_minutes(issuer: Issuer) -> None:
    data, skew = signed(issuer), timedelta(minutes=10)
    for now in (SIGNED_AT, SIGNED_AT - skew):
        assert endorsement.read(data, now=now).signed_at == SIGNED_AT
    early = SIGNED_AT - skew - timedelta(seconds=1)
    error = refused(data, "uvm.validity", "signed in the future", now=early)
    assert (error.expected, error.found) == (early.isoformat(), str(SIGNED_AT))


# -- receipts --------------------------------------------------------------------------------------------------------


def key_of(ledger: Ledger) -> bytes:
    return ledger.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def with_proofs_of(receipt: bytes, *others: bytes) -> bytes:
    """The receipt with the proofs of others beside its own."""
    found = parse_envelope(receipt)
    proofs: list[Value] = []
    for data in (receipt, *others):
        members = parse_envelope(data).unprotected[headers.VDP]
        assert isinstance(members, dict)
        more = members[-1]
        assert isinstance(more, list)
        proofs += more
    return cbor.encode(Tag(TAG, [found.protected, {headers.VDP: {-1: proofs}}, None, found.signature]))


def test_each_proof_of_a_receipt_is_for_this_document(issuer: Issuer) -> None:
    """Whoever the ledger is."""
    ledger, data = Ledger.make(), signed(issuer)
    right, wrong = ledger.receipt(data), ledger.receipt(signed(issuer, 8))
    for receipt in (with_proofs_of(right, wrong), with_proofs_of(wrong, right), wrong):
        refused(with_receipts(data, receipt), "uvm.receipt", "the receipt is for another document")


def test_a_strangers_receipt_counts_for_nothing_and_harms_nothing(issuer: Issuer) -> None:
    ledger, stranger, data = Ledger.make(), Ledger.make("stranger.example"), signed(issuer)
    both = with_receipts(data, stranger.receipt(data), ledger.receipt(data))
    assert endorsement.read(both, now=LATER, ledger_keys=(key_of(ledger),)).ledgers == (ledger.name,)
    assert endorsement.read(both, now=LATER).ledgers == ()


def test_a_receipt_of_a_trusted_ledger_has_to_be_right(issuer: Issuer) -> None:
    ledger, data = Ledger.make(), signed(issuer)
    proof_of_another_tree = ledger.receipt(data, path=((False, b"\2" * 32),))
    found, other = parse_envelope(ledger.receipt(data)), parse_envelope(proof_of_another_tree)
    forged = cbor.encode(Tag(TAG, [found.protected, dict(other.unprotected), None, found.signature]))
    refused(with_receipts(data, forged), "uvm.receipt", "the receipt of ledger.example", keys=(key_of(ledger),))


def test_a_ledgers_key_is_one_of_an_elliptic_curve(issuer: Issuer) -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    key = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    refused(signed(issuer), "usage", "a ledger's key is an elliptic-curve key", keys=(key,))


# -- errors ----------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_an_envelope_is_told_with_all_that_is_known() -> None:
    told = endorsement._from_cose(CoseError("chain", "broken", expected="a", found="b", hint="c"))
    assert told.to_json() == {"code": "uvm.chain", "message": "broken", "expected": "a", "found": "b", "hint": "c"}
    assert endorsement._from_cose(CoseError("usage", "mistaken")).code == "usage"


def test_a_signer_needs_its_own_key_and_a_chain(issuer: Issuer) -> None:
    other = make_issuer()
    for key, chain, code in (
        (b"garbage", issuer.chain, "uvm.format"),
        (issuer.key, b"garbage", "uvm.format"),
        (other.key, issuer.chain, "usage"),
    ):
        with pytest.raises(SnpError) as caught:
            endorsement.load_signer(key, chain)
        assert caught.value.code == code
    assert endorsement.load_signer(issuer.key, issuer.chain).ders == issuer.signer.ders
