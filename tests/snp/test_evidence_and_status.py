# SPDX-License-Identifier: Apache-2.0
"""The evidence and status documents: written and read back, strict about everything from outside."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_snp import evidence as documents
from parma_snp import status as statuses
from parma_snp.anchors import AMD, emulated_root
from parma_snp.errors import SnpError
from parma_snp.evidence import Evidence, verify_evidence
from parma_snp.expected import UNCHECKED, Expected
from parma_snp.report import GENOA, MILAN, Product
from parma_snp.verify import Verdict
from tests.snp.conftest import MEASUREMENT, NOW, REPORT_DATA, Emulated

POLICY = b"package policy\n"


def sample(emulated: Emulated) -> Evidence:
    policy = Evidence("none", POLICY)
    report = emulated.authority.sign_report(
        report_data=REPORT_DATA, host_data=policy.policy_sha256, measurement=MEASUREMENT, report_id=bytes(32)
    )
    return Evidence("emulated", POLICY, report, emulated.authority.certificate_chain, REPORT_DATA)


def judge(emulated: Emulated, evidence: Evidence, policy: bytes = POLICY) -> Verdict:
    expected = Expected(Evidence("none", policy).policy_sha256, MEASUREMENT, REPORT_DATA)
    return verify_evidence(
        evidence, now=NOW, expected=expected, roots=emulated_root(emulated.root), allow_emulated=True
    )


def codes(verdict: Verdict) -> list[str]:
    return [failure.code for failure in verdict.failures]


def test_evidence_survives_writing_and_reading(emulated: Emulated) -> None:
    evidence = sample(emulated)
    assert documents.parse(evidence.dumps().encode()) == evidence


def test_evidence_of_the_expected_vm_is_accepted(emulated: Emulated) -> None:
    assert judge(emulated, sample(emulated)).accepted


def test_another_policy_is_refused(emulated: Emulated) -> None:
    assert codes(judge(emulated, sample(emulated), policy=b"package other\n")) == ["appraise.host_data"]


def test_a_false_copy_of_the_policy_is_refused(emulated: Emulated) -> None:
    assert codes(judge(emulated, replace(sample(emulated), policy=b"package other\n"))) == ["evidence.policy"]


def test_a_false_claim_of_freshness_is_refused(emulated: Emulated) -> None:
    assert codes(judge(emulated, replace(sample(emulated), report_data=bytes(64)))) == ["evidence.report_data"]


def test_emulated_evidence_that_claims_to_be_real_is_refused_even_under_the_emulated_root(emulated: Emulated) -> None:
    assert codes(judge(emulated, replace(sample(emulated), tee="snp"))) == ["evidence.tee"]


def test_claims_beside_a_report_that_is_not_genuine_are_not_looked_at(emulated: Emulated) -> None:
    good = sample(emulated)
    report = bytes((*good.report[:0x50], good.report[0x50] ^ 1, *good.report[0x51:]))
    verdict = judge(emulated, replace(good, report=report, policy=b"package other\n"))
    assert codes(verdict) == ["sig.invalid"]
    assert verdict.checks[-1].name == "signature"
    assert judge(emulated, good).checks[-2].name == "claims"


def test_evidence_of_another_product_than_the_one_named_is_refused(emulated: Emulated) -> None:
    evidence = sample(emulated)
    judged: tuple[tuple[Product, list[str]], ...] = ((MILAN, []), (GENOA, ["cert.product"]))
    for product, found in judged:
        verdict = verify_evidence(
            evidence,
            now=NOW,
            expected=Expected(evidence.policy_sha256, MEASUREMENT, REPORT_DATA),
            roots=emulated_root(emulated.root),
            allow_emulated=True,
            product=product,
        )
        assert codes(verdict) == found


def test_whether_a_policy_that_forbids_nothing_would_do_is_told() -> None:
    strict = Expected(UNCHECKED, UNCHECKED, UNCHECKED)
    assert documents.strictness(b"package policy", strict).wanted == "a policy that forbids"
    assert documents.strictness(b"package policy", replace(strict, allow_permissive=True)).wanted == "any policy"


def test_unreadable_certificates_are_a_verdict(emulated: Emulated) -> None:
    verdict = judge(emulated, replace(sample(emulated), certificates="-----BEGIN CERTIFICATE-----\nxx"))
    assert codes(verdict) == ["cert.parse"]
    assert not verdict.accepted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tee": "none", "report": b"", "certificates": ""}, "evidence.unattested"),
        ({"certificates": ""}, "evidence.certificates"),
        ({}, "emulated.not_allowed"),
    ],
)
def test_what_cannot_be_judged_is_an_error(emulated: Emulated, change: dict[str, Any], code: str) -> None:
    evidence = replace(sample(emulated), **change)
    expected = Expected(evidence.policy_sha256, MEASUREMENT, REPORT_DATA)
    with pytest.raises(SnpError) as caught:
        verify_evidence(evidence, now=NOW, expected=expected, roots=AMD)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"format": "parma-evidence/2"},
        {"tee": "tdx"},
        {"tee": "none"},
        {"report": "AAAA"},
        {"report": "not base64!"},
        {"report": 7},
        {"policy": None},
        {"report_data": "00"},
        {"report_data": "AA" * 64},
        {"certificates": []},
        {"extra": 1},
    ],
    ids=str,
)
def test_wrong_evidence_is_refused(emulated: Emulated, change: dict[str, object]) -> None:
    document = {**sample(emulated).to_json(), **change}
    with pytest.raises(SnpError) as caught:
        documents.parse(json.dumps(document).encode())
    assert caught.value.code == "evidence.format"


@pytest.mark.parametrize("key", ["format", "tee", "report", "certificates", "policy", "report_data"])
def test_every_key_is_required(emulated: Emulated, key: str) -> None:
    document = sample(emulated).to_json()
    del document[key]
    with pytest.raises(SnpError, match=f"no {key}"):
        documents.parse(json.dumps(document).encode())


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(SnpError, match="appears twice"):
        documents.parse(b'{"tee": "none", "tee": "snp"}')


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_documented_error(data: bytes) -> None:
    for parse in (documents.parse, statuses.parse):
        with pytest.raises(SnpError):
            parse(data)


def test_deeply_nested_documents_are_refused() -> None:
    with pytest.raises(SnpError):
        documents.parse(b'{"a":' * 100_000)


def test_status_of_accepted_evidence_is_attested_and_says_emulated(emulated: Emulated) -> None:
    evidence = sample(emulated)
    status = statuses.from_verdict(judge(emulated, evidence), evidence, now=NOW)
    assert (status.verdict, status.emulated, status.verified_by) == ("attested", True, "shim")
    assert statuses.parse(status.dumps().encode()).to_json() == status.to_json()
    assert "EMULATED" not in status.verdict
    assert "protects nothing" in statuses.render(status)


def test_status_names_the_instance_of_the_vm(emulated: Emulated) -> None:
    evidence = sample(emulated)
    again = emulated.authority.sign_report(
        report_data=REPORT_DATA, host_data=evidence.policy_sha256, measurement=MEASUREMENT, report_id=b"\2" * 32
    )
    one, other = (
        statuses.from_verdict(judge(emulated, found), found, now=NOW)
        for found in (evidence, replace(evidence, report=again))
    )
    assert (one.report_id, other.report_id) == ("00" * 32, "02" * 32)
    assert "Instance:       " + "02" * 32 in statuses.render(other)
    assert statuses.parse(other.dumps().encode()).report_id == other.report_id
    assert statuses.unattested(bytes(32), now=NOW).report_id == ""


def test_status_of_refused_evidence_is_failed_with_the_reasons(emulated: Emulated) -> None:
    evidence = sample(emulated)
    verdict = judge(emulated, evidence, policy=b"package other\n")
    status = statuses.from_verdict(verdict, evidence, now=NOW)
    assert status.verdict == "failed"
    assert "appraise.host_data" in statuses.render(status)
    assert statuses.parse(status.dumps().encode()).failures[0].code == "appraise.host_data"


def test_status_without_evidence_is_failed_with_the_error() -> None:
    error = SnpError("evidence.certificates", "none")
    status = statuses.failed("snp", bytes(32), [error], now=NOW)
    assert statuses.parse(status.dumps().encode()).to_json() == status.to_json()
    assert not status.emulated


def test_status_without_a_secure_processor_is_unattested() -> None:
    status = statuses.unattested(bytes(32), now=NOW)
    assert (status.verdict, status.tee, status.evidence) == ("unattested", "none", None)
    assert "no secure processor" in statuses.render(status)
    assert statuses.parse(status.dumps().encode()).to_json() == status.to_json()


def test_status_that_hides_emulation_is_refused() -> None:
    document = statuses.failed("emulated", bytes(32), [], now=NOW).to_json()
    document["emulated"] = False
    with pytest.raises(SnpError, match="contradict"):
        statuses.parse(json.dumps(document).encode())
