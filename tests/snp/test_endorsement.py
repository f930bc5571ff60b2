# SPDX-License-Identifier: Apache-2.0
"""Endorsed measurements: signed by us and by others, judged as a relying party asks."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from parma_cose import algorithms, headers, signing
from parma_cose.cbor import Label, Value
from parma_cose.keys import read_trust_list
from parma_cose.sign1 import parse as parse_envelope
from parma_snp import endorsement
from parma_snp.anchors import emulated_root
from parma_snp.endorsement import EMULATED_FEED, FEED
from parma_snp.errors import SnpError
from parma_snp.expected import Endorser, Expected
from parma_snp.verify import Verdict, verify
from tests.cose.chains import Ledger, with_receipts
from tests.snp.conftest import HOST_DATA, MEASUREMENT, NOW, REPORT_DATA, Emulated
from tests.snp.pki import BEGIN, SIGNED_AT, Issuer, make_issuer

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp"
WITH_VECTORS = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared vectors beside the checkout")
LATER = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return make_issuer()


@pytest.fixture(scope="module")
def signed(issuer: Issuer) -> bytes:
    return sign(issuer)


def sign(issuer: Issuer, signed_at: datetime = SIGNED_AT, feed: str = FEED) -> bytes:
    return endorsement.sign(MEASUREMENT, svn=7, feed=feed, issuer=issuer.did, signer=issuer.signer, signed_at=signed_at)


def code_of(data: bytes, wanted: Endorser, measurement: bytes = MEASUREMENT, now: datetime = LATER) -> str:
    with pytest.raises(SnpError) as caught:
        endorsement.verify(data, wanted, measurement, now=now)
    return caught.value.code


def test_what_we_sign_verifies_after_the_signers_certificate_has_expired(issuer: Issuer, signed: bytes) -> None:
    found = endorsement.verify(signed, Endorser(issuer.did, FEED, 7), MEASUREMENT, now=LATER)
    assert (found.svn, found.measurement, found.signed_at) == (7, MEASUREMENT, SIGNED_AT)
    assert (found.generation, found.issuer, found.ledgers) == ("hash-envelope", issuer.did, ())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"issuer": "did:x509:0:sha256:other::subject:CN:x"}, "uvm.issuer"),
        ({"feed": EMULATED_FEED}, "uvm.feed"),
        ({"min_svn": 8}, "uvm.svn"),
    ],
    ids=str,
)
def test_another_issuer_series_or_version_is_refused(
    issuer: Issuer, signed: bytes, change: dict[str, object], code: str
) -> None:
    assert code_of(signed, replace(Endorser(issuer.did, FEED, 7), **change)) == code  # type: ignore[arg-type]


def test_another_measurement_is_refused(issuer: Issuer, signed: bytes) -> None:
    assert code_of(signed, Endorser(issuer.did, FEED, 7), bytes(48)) == "uvm.measurement"


def test_no_endorsement_is_refused(issuer: Issuer) -> None:
    assert code_of(b"", Endorser(issuer.did, FEED, 7)) == "evidence.endorsement"


@pytest.mark.parametrize("moment", [BEGIN - timedelta(days=1), LATER - timedelta(days=1)])
def test_a_certificate_must_have_been_valid_at_the_signing(issuer: Issuer, moment: datetime) -> None:
    assert code_of(sign(issuer, moment), Endorser(issuer.did, FEED, 7)) == "uvm.validity"


def test_nothing_is_signed_in_the_future(issuer: Issuer, signed: bytes) -> None:
    earlier = SIGNED_AT - timedelta(days=1)
    assert code_of(signed, Endorser(issuer.did, FEED, 7), now=earlier) == "uvm.validity"


def test_a_required_receipt_that_is_not_there_is_missed(issuer: Issuer, signed: bytes) -> None:
    key = issuer.signer.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = Endorser(issuer.did, FEED, 7, require_receipt=True, ledger_keys=(key,))
    assert code_of(signed, wanted) == "uvm.receipt"


def test_a_receipt_cannot_be_required_without_a_ledger() -> None:
    with pytest.raises(SnpError, match="ledger"):
        Endorser("did:x509:0:sha256:x::eku:1", FEED, 1, require_receipt=True)


def test_no_flipped_bit_survives(issuer: Issuer, signed: bytes) -> None:
    wanted = Endorser(issuer.did, FEED, 7)
    for bit in range(0, 8 * len(signed), 7):
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnpError):
            endorsement.verify(bytes(changed), wanted, MEASUREMENT, now=LATER)


@given(st.binary(max_size=400))
def test_garbage_raises_only_the_documented_error(data: bytes) -> None:
    with pytest.raises(SnpError) as caught:
        endorsement.read(data, now=LATER)
    assert caught.value.code.startswith("uvm.")


def test_a_receipt_of_a_ledger_that_is_trusted_is_enough_and_one_for_another_document_is_not(
    issuer: Issuer, signed: bytes
) -> None:
    ledger = Ledger.make()
    key = ledger.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = Endorser(issuer.did, FEED, 7, require_receipt=True, ledger_keys=(key,))
    registered = with_receipts(signed, ledger.receipt(signed))
    assert endorsement.verify(registered, wanted, MEASUREMENT, now=LATER).ledgers == ("ledger.example",)
    assert endorsement.claimed_ledgers(registered) == ("ledger.example",)
    assert endorsement.claimed_ledgers(signed) == ()
    with pytest.raises(SnpError) as caught:
        endorsement.claimed_ledgers(b"garbage")
    assert caught.value.code == "uvm.format"
    stranger = with_receipts(signed, Ledger.make().receipt(signed))
    assert code_of(stranger, wanted) == "uvm.receipt"
    other = with_receipts(signed, ledger.receipt(sign(issuer, feed=EMULATED_FEED)))
    for demanded in (wanted, Endorser(issuer.did, FEED, 7)):
        assert code_of(other, demanded) == "uvm.receipt"


def test_the_envelope_of_a_hash_has_the_hash_of_a_measurement_and_a_version(issuer: Issuer) -> None:
    def made(payload: bytes = MEASUREMENT, algorithm: int = -43, svn: object = 7) -> bytes:
        claims: dict[Label, Value] = {headers.CLAIM_ISSUER: issuer.did, headers.CLAIM_SUBJECT: FEED}
        claims[headers.CLAIM_ISSUED_AT] = int(SIGNED_AT.timestamp())
        if isinstance(svn, int):
            claims[headers.CLAIM_SVN] = svn
        ders = list(issuer.signer.ders)
        protected: dict[Label, Value] = {
            headers.ALG: -35,
            headers.CWT_CLAIMS: claims,
            headers.X5CHAIN: ders,
            headers.X5T: [-16, hashlib.sha256(ders[0]).digest()],
            headers.PAYLOAD_HASH_ALG: algorithm,
            headers.PREIMAGE_CONTENT_TYPE: "application/octet-stream",
        }
        return signing.sign_map(protected, payload, issuer.signer.key, algorithms.BY_NUMBER[-35])

    wanted = Endorser(issuer.did, FEED, 7)
    assert endorsement.verify(made(), wanted, MEASUREMENT, now=LATER).svn == 7
    assert code_of(made(payload=MEASUREMENT[:-1]), wanted) == "uvm.format"
    assert code_of(made(payload=MEASUREMENT[:32], algorithm=-16), wanted) == "uvm.format"
    assert code_of(made(algorithm=-16), wanted) == "uvm.format"
    assert code_of(made(svn=None), wanted) == "uvm.format"


def test_what_cannot_be_signed_is_told_before_it_is(issuer: Issuer) -> None:
    other = make_issuer("Somebody else")
    with pytest.raises(SnpError) as caught:
        endorsement.sign(MEASUREMENT, svn=7, feed=FEED, issuer=other.did, signer=issuer.signer, signed_at=SIGNED_AT)
    assert caught.value.code == "uvm.issuer"
    for changes in ({"measurement": MEASUREMENT[:-1]}, {"svn": -1}, {"svn": endorsement.MAX_SVN + 1}, {"feed": ""}):
        good: dict[str, Any] = {"measurement": MEASUREMENT, "svn": 7, "feed": FEED, **changes}
        with pytest.raises(SnpError) as caught:
            endorsement.sign(
                good.pop("measurement"), **good, issuer=issuer.did, signer=issuer.signer, signed_at=SIGNED_AT
            )
        assert caught.value.code == "usage"
    with pytest.raises(SnpError) as caught:
        endorsement.issuer_of(issuer.signer, "nonsense")
    assert caught.value.code == "usage"


def in_json(issuer: Issuer, **members: object) -> bytes:
    """The older generation: names as text labels, the measurement in a JSON document."""
    protected: dict[Label, Value] = {
        headers.ALG: -35,
        headers.CONTENT_TYPE: "application/json",
        headers.X5CHAIN: list(issuer.signer.ders),
        headers.LEGACY_ISSUER: issuer.did,
        headers.LEGACY_FEED: FEED,
        headers.LEGACY_SIGNING_TIME: int(SIGNED_AT.timestamp()),
    }
    content = {"x-ms-sevsnpvm-guestsvn": "7", "x-ms-sevsnpvm-launchmeasurement": MEASUREMENT.hex()} | members
    return signing.sign_map(protected, json.dumps(content).encode(), issuer.signer.key, algorithms.BY_NUMBER[-35])


def test_an_endorsement_in_json_is_read_in_either_case_of_its_digits(issuer: Issuer) -> None:
    for measurement in (MEASUREMENT.hex(), MEASUREMENT.hex().upper()):
        data = in_json(issuer, **{"x-ms-sevsnpvm-launchmeasurement": measurement})
        assert endorsement.verify(data, Endorser(issuer.did, FEED, 7), MEASUREMENT, now=LATER).generation == "json"


@pytest.mark.parametrize(
    "members",
    [
        {"x-ms-sevsnpvm-launchmeasurement": f"{MEASUREMENT.hex()[:48]} {MEASUREMENT.hex()[48:]}"},
        {"x-ms-sevsnpvm-launchmeasurement": f"0x{MEASUREMENT.hex()}"},
        {"x-ms-sevsnpvm-launchmeasurement": MEASUREMENT.hex()[:-1]},
        {"x-ms-sevsnpvm-guestsvn": 7},
        {"x-ms-sevsnpvm-guestsvn": "-7"},
        {"x-ms-sevsnpvm-guestsvn": "\u0667"},
        {"x-ms-sevsnpvm-guestsvn-int": 8},
        {"x-ms-sevsnpvm-guestsvn-int": 7.0},
    ],
    ids=str,
)
def test_an_endorsement_in_json_that_can_be_read_in_two_ways_is_refused(
    issuer: Issuer, members: dict[str, object]
) -> None:
    assert code_of(in_json(issuer, **members), Endorser(issuer.did, FEED, 7)) == "uvm.format"


def judge(emulated: Emulated, wanted: Endorser, data: bytes) -> Verdict:
    return verify(
        emulated.report,
        emulated.chain,
        now=NOW,
        expected=Expected(HOST_DATA, wanted, REPORT_DATA),
        roots=emulated_root(emulated.root),
        allow_emulated=True,
        endorsement=data,
    )


def test_a_report_is_accepted_by_endorser_instead_of_digest(emulated: Emulated, issuer: Issuer, signed: bytes) -> None:
    verdict = judge(emulated, Endorser(issuer.did, FEED, 7), signed)
    assert verdict.accepted
    assert verdict.checks[-1].name == "endorsement"
    assert verdict.unchecked == ()


def test_and_refused_when_the_endorsement_is_not_enough(emulated: Emulated, issuer: Issuer, signed: bytes) -> None:
    for wanted, data in ((Endorser(issuer.did, FEED, 8), signed), (Endorser(issuer.did, FEED, 7), b"")):
        verdict = judge(emulated, wanted, data)
        assert verdict.authentic
        assert not verdict.accepted
        assert verdict.checks[-1].name == "endorsement"


@WITH_VECTORS
def test_a_clouds_complete_evidence_is_accepted_by_its_endorser() -> None:
    """Report, VCEK and endorsement of one real machine; the receiver names who may endorse."""
    folder = VECTORS / "positive" / "milan-v2-aci-parma"
    from parma_snp.report import parse
    from parma_snp.sources import read_certificates

    report = (folder / "report.bin").read_bytes()
    policy = base64.b64decode((folder / "security-policy-base64").read_bytes())
    issuer = json.loads((VECTORS / "uvm" / "ms-json-svn22" / "case.json").read_text())["policy"]["issuer"]
    expected = Expected(
        host_data=hashlib.sha256(policy).digest(),
        measurement=Endorser(issuer, "ContainerPlat-AMD-UVM", 22),
        report_data=parse(report).report_data,
        min_tcb={"snp": 8},
    )
    verdict = verify(
        report,
        read_certificates((folder / "host-amd-cert.json").read_bytes(), parse(report)),
        now=datetime(2023, 6, 1, tzinfo=UTC),
        expected=expected,
        product="Milan",
        endorsement=(folder / "reference-info.cose").read_bytes(),
    )
    assert [str(failure) for failure in verdict.failures] == []


@WITH_VECTORS
def test_a_real_receipt_is_believed_with_the_ledgers_key_only() -> None:
    """The keys are those of the trust list that lies among the cases as a document of another kind."""
    case = VECTORS / "uvm" / "ms-hash-envelope-svn104"
    policy = json.loads((case / "case.json").read_text())["policy"]
    data, measurement = (case / "endorsement.cose").read_bytes(), bytes.fromhex(policy["measurement"])
    payload = parse_envelope((VECTORS / "uvm" / "ms-other-document-type" / "endorsement.cose").read_bytes()).payload
    lists = read_trust_list(payload or b"")
    (ledger,) = endorsement.claimed_ledgers(data)
    keys = [key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in lists.get(ledger, {}).values()]
    if not keys:
        pytest.skip("the trust list is of other ledgers")
    wanted = Endorser(policy["issuer"], policy["feed"], 104, require_receipt=True, ledger_keys=tuple(keys))
    assert endorsement.verify(data, wanted, measurement, now=LATER).ledgers == (ledger,)
    stranger = make_issuer().signer.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert code_of(data, replace(wanted, ledger_keys=(stranger,)), measurement) == "uvm.receipt"
