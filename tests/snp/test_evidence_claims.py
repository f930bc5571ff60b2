# SPDX-License-Identifier: Apache-2.0
"""What a verdict on an evidence document tells: its claims word by word, its list, its endorsement, what it lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parma_snp import evidence as documents
from parma_snp.endorsement import FEED, sign
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.expected import UNCHECKED, Endorser, Expected
from parma_snp.report import MILAN, REPORT_SIZE
from parma_snp.verify import Check, Verdict
from tests.snp.amd import NOW, Amd
from tests.snp.conftest import MEASUREMENT, REPORT_DATA
from tests.snp.pki import SIGNED_AT, make_issuer

POLICY = b"package policy\n"
PERMISSIVE = POLICY + b"permissive := true\n"
WANTED = Expected(Evidence("none", POLICY).policy_sha256, MEASUREMENT, REPORT_DATA, min_tcb={})


@pytest.fixture(scope="module")
def genuine(amd: Amd) -> Evidence:
    """Of a machine that is not emulated."""
    told = {0x50: REPORT_DATA, 0x90: MEASUREMENT, 0xC0: Evidence("none", POLICY).policy_sha256}
    return Evidence("snp", POLICY, amd.report(MILAN, poke=told), amd.chain(MILAN).to_pem(), REPORT_DATA)


def judged(amd: Amd, evidence: Evidence, expected: Expected = WANTED, **more: Any) -> Verdict:
    return verify_evidence(evidence, now=NOW, expected=expected, roots=amd.roots, **more)


def check(verdict: Verdict, name: str) -> Check:
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


def codes(verdict: Verdict) -> list[str]:
    return [failure.code for failure in verdict.failures]


def refused(document: dict[str, Any]) -> SnpError:
    with pytest.raises(SnpError) as caught:
        documents.from_json(document)
    assert caught.value.code == "evidence.format"
    return caught.value


def test_genuine_evidence_needs_no_leave_for_emulated_ones(amd: Amd, genuine: Evidence) -> None:
    for allowed in (False, True):
        verdict = judged(amd, genuine, allow_emulated=allowed)
        assert verdict.accepted
        assert check(verdict, "claims").detail == "policy and report_data are those of the report"


def test_each_false_claim_is_told_with_both_values(amd: Amd, genuine: Evidence) -> None:
    other = replace(genuine, policy=b"package other\n", report_data=bytes(64))
    claims = check(judged(amd, other), "claims")
    assert claims.detail == "the policy in the evidence is not the VM's; the evidence claims other REPORT_DATA"
    told = [(failure.code, failure.expected, failure.found) for failure in claims.failures]
    assert told == [
        ("evidence.policy", genuine.policy_sha256.hex(), other.policy_sha256.hex()),
        ("evidence.report_data", REPORT_DATA.hex(), "00" * 64),
    ]
    (failure,) = check(judged(amd, replace(genuine, tee="emulated"), allow_emulated=True), "claims").failures
    assert (failure.code, failure.found) == ("evidence.tee", "emulated")


def test_a_list_is_consulted_and_may_be_required(amd: Amd, genuine: Evidence) -> None:
    good, bad = amd.crl(MILAN), amd.crl(MILAN, "SEV-Milan")
    assert codes(judged(amd, genuine, crl="require")) == ["cert.crl_missing"]
    assert codes(judged(amd, genuine, crl="require", crl_der=good)) == []
    assert codes(judged(amd, genuine, crl_der=bad)) == ["cert.revoked"]
    assert codes(judged(amd, genuine, crl="off", crl_der=bad)) == []


def test_certificates_that_cannot_be_read_fail_their_step(amd: Amd, genuine: Evidence) -> None:
    (only,) = judged(amd, replace(genuine, certificates="garbage")).checks
    assert (only.name, only.detail) == ("certificates", only.failures[0].message)
    assert (only.failures[0].code, only.wanted, only.found) == ("cert.parse", "", "")


def test_an_endorsement_travels_with_the_evidence_and_is_judged(amd: Amd, genuine: Evidence) -> None:
    issuer = make_issuer()
    signed = sign(MEASUREMENT, svn=7, feed=FEED, issuer=issuer.did, signer=issuer.signer, signed_at=SIGNED_AT)
    endorser = Endorser(issuer.did, FEED, 7)
    wanted = replace(WANTED, measurement=endorser)
    received = documents.parse(replace(genuine, endorsement=signed).dumps().encode())
    assert received.endorsement == signed
    verdict = judged(amd, received, wanted)
    assert verdict.accepted
    found = f"SVN 7, signed {SIGNED_AT.isoformat()}"
    endorsed = check(verdict, "endorsement")
    assert (endorsed.wanted, endorsed.found, endorsed.detail) == (str(endorser), found, found)
    assert codes(judged(amd, genuine, wanted)) == ["evidence.endorsement"]


@pytest.mark.parametrize(
    ("policy", "allowed", "found", "code"),
    [
        (POLICY, False, "forbids what it does not list", []),
        (POLICY, True, "forbids what it does not list", []),
        (PERMISSIVE, True, "forbids nothing", []),
        (PERMISSIVE, False, "forbids nothing", ["evidence.permissive"]),
    ],
)
def test_whether_a_policy_forbids_anything_is_told_and_judged(
    policy: bytes, allowed: bool, found: str, code: list[str]
) -> None:
    expected = Expected(UNCHECKED, UNCHECKED, UNCHECKED, allow_permissive=allowed)
    result = documents.strictness(policy, expected)
    assert (result.found, result.detail) == (found, found)
    assert [failure.code for failure in result.failures] == code


@pytest.mark.parametrize("report", [b"", b"garbage"])
def test_without_certificates_it_is_said_who_has_them_whatever_the_report_is(
    amd: Amd, genuine: Evidence, report: bytes
) -> None:
    for unverified, place in (
        (report, "https://kdsintf.amd.com (an attestation report has another size)"),
        (genuine.report, "https://kdsintf.amd.com/vcek/v1/Milan/"),
    ):
        with pytest.raises(SnpError) as caught:
            judged(amd, replace(genuine, report=unverified, certificates=""))
        assert caught.value.code == "evidence.certificates"
        assert place in caught.value.hint


def test_evidence_has_at_most_four_mebibytes() -> None:
    for size, message in ((4 << 20, "not a JSON document"), ((4 << 20) + 1, "the document is too large")):
        with pytest.raises(SnpError, match=message):
            documents.parse(bytes(size))


def test_a_vm_without_a_processor_has_neither_report_nor_endorsement() -> None:
    read = documents.from_json(dict(Evidence("none", POLICY).to_json()))
    assert (read.report, read.endorsement, read.certificates) == (b"", b"", "")


def test_a_report_is_there_exactly_when_a_processor_is(genuine: Evidence) -> None:
    none = Evidence("none", POLICY).to_json()
    error = refused({**none, "report": "AA=="})
    assert (error.expected, error.found) == ("none", "1 bytes")
    error = refused({**genuine.to_json(), "report": ""})
    assert (error.expected, error.found) == (f"{REPORT_SIZE} bytes", "0 bytes")
