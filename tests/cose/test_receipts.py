# SPDX-License-Identifier: Apache-2.0
"""Transparency receipts and trust lists: real ones, and every way in which they can be wrong."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_cose import cbor, did, envelope, headers, sign1
from parma_cose.cbor import Label, Tag
from parma_cose.errors import CoseError
from parma_cose.keys import read_trust_list
from parma_cose.receipts import MAX_PATH, Receipt
from parma_cose.signing import Document, sign
from tests.cose.chains import EKU, NOW, Ledger, shared_authority, trust_list, with_receipts

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp" / "uvm"
LEDGER = Ledger.make()


@cache
def document() -> bytes:
    signer = shared_authority().signer
    return sign(Document(b"x", did.derive(signer.chain, f"eku:{EKU}"), "feed", "text/plain", 1, NOW), signer)


@cache
def receipt() -> bytes:
    return LEDGER.receipt(document())


def verify(data: bytes, ledger: Ledger = LEDGER, registered: bytes | None = None) -> None:
    keys = read_trust_list(trust_list(ledger))[ledger.name]
    Receipt.parse(data).verify(registered or sign1.parse(document()).without_unprotected(), keys)


def rebuilt(*, protected: Any = None, unprotected: Any = None, payload: Any = None) -> bytes:
    found = sign1.parse(receipt())
    members: Any = cbor.decode(found.protected, limit=9999)
    members |= protected or {}
    return cbor.encode(Tag(18, [cbor.encode(members), unprotected or found.unprotected, payload, found.signature]))


def with_proof(**changes: Any) -> bytes:
    proof = Receipt.parse(receipt()).proofs[0]
    leaf = [proof.transaction_hash, proof.evidence, proof.data_hash]
    members: dict[Label, Any] = {
        1: changes.get("leaf", leaf),
        2: changes.get("path", [list(step) for step in proof.path]),
    }
    return rebuilt(unprotected={headers.VDP: {-1: [cbor.encode({**members, **changes.get("more", {})})]}})


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(CoseError) as refusal:
        verify(data, **options)
    return refusal.value.code


@pytest.mark.parametrize("path", [(), ((True, b"\1" * 32),), ((False, b"\2" * 32), (True, b"\3" * 32)) * 16], ids=len)
def test_a_receipt_of_the_ledgers_key_is_verified(path: Any) -> None:
    verify(LEDGER.receipt(document(), path=path))


def test_receipts_do_not_change_what_was_registered() -> None:
    transparent = sign1.parse(with_receipts(document(), receipt(), receipt()))
    assert transparent.unverified_receipts == (receipt(), receipt())
    verify(receipt(), registered=transparent.without_unprotected())
    assert envelope.verify_parsed(transparent).payload == b"x"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared/vectors/snp beside the checkout")
@pytest.mark.parametrize("name", ["ms-hash-envelope-svn104", "ms-other-document-type"])
def test_real_receipts_are_verified_with_a_real_trust_list(name: str) -> None:
    listed = envelope.verify((VECTORS / "ms-other-document-type/endorsement.cose").read_bytes(), any_curve=True)
    ledgers = read_trust_list(listed.payload)
    found = sign1.parse((VECTORS / name / "endorsement.cose").read_bytes())
    (data,) = found.unverified_receipts
    parsed = Receipt.parse(data)
    parsed.verify(found.without_unprotected(), ledgers[parsed.ledger])
    with pytest.raises(CoseError, match="another envelope"):
        parsed.verify(found.without_unprotected() + b"\0", ledgers[parsed.ledger])


@pytest.mark.parametrize(
    "data",
    [
        lambda: b"",
        lambda: document(),
        lambda: rebuilt(protected={headers.VDS: 1}),
        lambda: rebuilt(protected={headers.VDS: "2"}),
        lambda: rebuilt(protected={headers.KID: b"other"}),
        lambda: rebuilt(protected={headers.CWT_CLAIMS: {}}),
        lambda: rebuilt(protected={headers.CRIT: ["ccf.v9"], "ccf.v9": {}}),
        lambda: rebuilt(protected={headers.ALG: -7}),
        lambda: rebuilt(protected={"more": 1}),
        lambda: rebuilt(payload=Receipt.parse(receipt()).proofs[0].root()),
        lambda: rebuilt(unprotected={1000: 1}),
        lambda: rebuilt(unprotected={headers.VDP: []}),
        lambda: rebuilt(unprotected={headers.VDP: {-1: []}}),
        lambda: rebuilt(unprotected={headers.VDP: {-2: [b""]}}),
        lambda: rebuilt(unprotected={headers.VDP: {-1: ["x"]}}),
        lambda: rebuilt(unprotected={headers.VDP: {-1: [b"\xa0"] * 9}}),
        lambda: with_proof(path=[]),
        lambda: with_proof(path=[[False, b"\1" * 32]]),
        lambda: with_proof(path=[[1, b"\1" * 32]]),
        lambda: with_proof(path=[[True, b"\1" * 31]]),
        lambda: with_proof(path=[[True, b"\1" * 32]] * (MAX_PATH + 1)),
        lambda: with_proof(path=None),
        lambda: with_proof(leaf=[b"\7" * 32, "ce:2.1:01", b"\0" * 32]),
        lambda: with_proof(leaf=[b"\7" * 31, "ce", b"\0" * 32]),
        lambda: with_proof(leaf=[b"\7" * 32, "x" * 2000, b"\0" * 32]),
        lambda: with_proof(leaf=[b"\7" * 32, "ce"]),
        lambda: with_proof(more={3: 1}),
        lambda: Ledger.make(LEDGER.name).receipt(document()),
    ],
)
def test_a_receipt_that_is_wrong_is_refused(data: Any) -> None:
    assert code_of(data()) == "receipt"


def test_a_receipt_for_another_envelope_is_refused() -> None:
    assert code_of(receipt(), registered=document() + b"\0") == "receipt"


def test_every_proof_of_a_receipt_counts() -> None:
    found = sign1.parse(receipt())
    proofs: Any = found.unprotected[headers.VDP]
    (good,) = proofs[-1]
    bad = sign1.parse(with_proof(path=[])).unprotected[headers.VDP][-1][0]  # type: ignore[index]
    verify(rebuilt(unprotected={headers.VDP: {-1: [good, good]}}))
    assert code_of(rebuilt(unprotected={headers.VDP: {-1: [good, bad]}})) == "receipt"


@given(st.integers(0, len(receipt()) * 8 - 1))
def test_no_flipped_bit_of_a_receipt_is_overlooked(bit: int) -> None:
    flipped = bytearray(receipt())
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CoseError) as refusal:
        verify(bytes(flipped))
    assert refusal.value.code == "receipt"


@pytest.mark.parametrize("receipts", ["x", {}, ["x"], [b""] * 33], ids=str)
def test_a_malformed_list_of_receipts_is_refused(receipts: Any) -> None:
    found = sign1.parse(document())
    data = cbor.encode(Tag(18, [found.protected, {headers.RECEIPTS: receipts}, found.payload, found.signature]))
    with pytest.raises(CoseError) as refusal:
        _ = sign1.parse(data).unverified_receipts
    assert refusal.value.code == "receipt"


# Trust lists


def test_both_shapes_of_trust_lists_are_read() -> None:
    key = LEDGER.cose_key()
    shapes: list[Any] = [{"l": {1: [key]}}, {"l": [key]}]
    for shape in shapes:
        assert list(read_trust_list(cbor.encode(shape))["l"]) == [LEDGER.key_id]
    assert len(read_trust_list(cbor.encode({"l": [key, Ledger.make().cose_key()]}))["l"]) == 2


def test_keys_of_unknown_kinds_are_left_out() -> None:
    key = LEDGER.cose_key()
    others: list[Any] = [{**key, 1: 3}, {**key, -1: 8}, {**key, 1: "EC"}, {}]
    assert list(read_trust_list(cbor.encode({"l": [*others, key]}))["l"]) == [LEDGER.key_id]
    assert read_trust_list(cbor.encode({"l": others})) == {"l": {}}


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {},
        {1: [LEDGER.cose_key()]},
        {"": [LEDGER.cose_key()]},
        {"l": {}},
        {"l": {1: []}},
        {"l": {2: [LEDGER.cose_key()]}},
        {"l": {1: [LEDGER.cose_key()], 2: 0}},
        {"l": []},
        {"l": [1]},
        {"l": [LEDGER.cose_key()] * 2},
        {"l": [{**LEDGER.cose_key(), 2: "id"}]},
        {"l": [{**LEDGER.cose_key(), 2: b""}]},
        {"l": [{**LEDGER.cose_key(), -2: b"x"}]},
        {"l": [{**LEDGER.cose_key(), -3: True}]},
        {"l": [{**LEDGER.cose_key(), -3: bytes(48)}]},
    ],
    ids=lambda payload: str(payload)[:40],
)
def test_malformed_trust_lists_are_refused(payload: Any) -> None:
    with pytest.raises(CoseError) as refusal:
        read_trust_list(cbor.encode(payload))
    assert refusal.value.code == "format"
