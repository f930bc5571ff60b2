# SPDX-License-Identifier: Apache-2.0
"""A report's signature number by number, what a signature alone does not prove, and what a verdict tells of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384, Hash

from parma_snp import verify as verification
from parma_snp.anchors import emulated_root
from parma_snp.certificates import SigningKey, verify_chain
from parma_snp.errors import SnpError
from parma_snp.expected import UNCHECKED, Endorser, Expected
from parma_snp.report import COMPONENT_SIZE, MILAN, PRODUCTS, SIGNED_SIZE, Product, parse
from parma_snp.verify import P384_ORDER, Verdict, verify
from tests.snp.amd import CHIP_ID, NOW, Amd
from tests.snp.conftest import Emulated

ANYTHING = Expected(UNCHECKED, UNCHECKED, UNCHECKED, vmpl=UNCHECKED, vlek_csp_ids=UNCHECKED, min_tcb={})


def signed_with(report: bytes, r: int, s: int) -> bytes:
    """The report with another signature."""
    numbers = b"".join(number.to_bytes(COMPONENT_SIZE, "little") for number in (r, s))
    return report[:SIGNED_SIZE] + numbers + report[SIGNED_SIZE + len(numbers) :]


def key_for(report: bytes, s: int) -> tuple[ec.EllipticCurvePublicKey, int]:
    """A key that signs just this report with the wanted ``s``, and the ``r`` that goes with it."""
    nonce = ec.generate_private_key(ec.SECP384R1())
    k, r = nonce.private_numbers().private_value, nonce.public_key().public_numbers().x % P384_ORDER
    digest = Hash(SHA384())
    digest.update(report[:SIGNED_SIZE])
    private = (s * k - int.from_bytes(digest.finalize(), "big")) * pow(r, -1, P384_ORDER) % P384_ORDER
    return ec.derive_private_key(private, ec.SECP384R1()).public_key(), r


def judged(amd: Amd, report: bytes, *, expected: Expected = ANYTHING, product: Product = MILAN) -> Verdict:
    return verify(report, amd.chain(product), now=NOW, expected=expected, roots=amd.roots)


def codes(verdict: Verdict) -> list[str]:
    return [failure.code for failure in verdict.failures]


@pytest.mark.parametrize("s", [1, 2, P384_ORDER - 1], ids=["1", "2", "order - 1"])
def test_every_number_below_the_order_may_be_one_of_a_signature(amd: Amd, s: int) -> None:
    report = amd.report(MILAN)
    public, r = key_for(report, s)
    key: SigningKey = replace(verify_chain(amd.chain(MILAN), amd.roots, NOW), public_key=public)
    verification._check_signature(parse(signed_with(report, r, s)), key)


@pytest.mark.parametrize("moved", [(0, 1), (1, 0), (1, 1)], ids=["r", "s", "both"])
def test_the_same_signature_in_larger_numbers_is_none(amd: Amd, moved: tuple[int, int]) -> None:
    """Modulo the order they are the same: a report would have several signatures that anybody can make."""
    report = amd.report(MILAN)
    r, s = parse(report).signature
    larger = signed_with(report, r + moved[0] * P384_ORDER, s + moved[1] * P384_ORDER)
    assert codes(judged(amd, larger)) == ["sig.invalid"]


@pytest.mark.parametrize(
    ("r", "s", "code"),
    [(0, 0, "sig.absent"), (0, 7, "sig.invalid"), (7, 0, "sig.invalid"), (P384_ORDER, P384_ORDER, "sig.invalid")],
)
def test_only_two_zeros_are_an_absent_signature(amd: Amd, r: int, s: int, code: str) -> None:
    assert codes(judged(amd, signed_with(amd.report(MILAN), r, s))) == [code]


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_masked_chip_id_that_is_allowed_allows_no_other_chip(amd: Amd, product: Product) -> None:
    allowed = replace(ANYTHING, allow_masked_chip_id=True)
    other = amd.report(product, chip_id=CHIP_ID[product][::-1])
    assert codes(judged(amd, other, expected=allowed, product=product)) == ["bind.chip_id"]
    masked = judged(amd, amd.report(product, chip_id=b""), expected=allowed, product=product)
    assert next(check for check in masked.checks if check.name == "chip").found == "chip id masked, as permitted"


def test_a_report_of_version_2_is_of_a_product_by_its_certificates_alone(amd: Amd) -> None:
    told = {2: f"{MILAN} (by the certificates alone: report of version 2)", 3: MILAN}
    for version, found in told.items():
        verdict = judged(amd, amd.report(MILAN, version))
        assert next(check for check in verdict.checks if check.name == "product").found == found


@pytest.mark.parametrize("place", [0x10, 0x20, 0x38, 0x1E0, 0x1F0], ids=hex)
def test_what_the_emulated_processor_signs_without_its_marks_is_not_authentic(emulated: Emulated, place: int) -> None:
    """Whoever has its key can sign any report; nobody takes one without the marks for genuine."""
    body = bytearray(emulated.report[:SIGNED_SIZE])
    body[place] ^= 1
    r, s = decode_dss_signature(emulated.authority._key.sign(bytes(body), ec.ECDSA(SHA384())))
    forged = signed_with(bytes(body) + emulated.report[SIGNED_SIZE:], r, s)
    roots = emulated_root(emulated.root)
    verdict = verify(forged, emulated.chain, now=NOW, expected=ANYTHING, roots=roots, allow_emulated=True)
    assert (codes(verdict), verdict.authentic, verdict.checks[-1].name) == (["emulated.marker"], False, "emulation")


def test_a_list_that_is_missed_fails_its_own_step(amd: Amd) -> None:
    verdict = verify(amd.report(MILAN), amd.chain(MILAN), now=NOW, expected=ANYTHING, roots=amd.roots, crl="require")
    assert (codes(verdict), verdict.checks[-1].name) == (["cert.crl_missing"], "revocation")


def test_what_an_appraisal_refuses_is_told_in_its_detail(amd: Amd) -> None:
    verdict = judged(amd, amd.report(MILAN), expected=replace(ANYTHING, min_tcb={"snp": 255, "ucode": 255}))
    refused = next(check for check in verdict.checks if check.name == "minimum TCB")
    assert codes(verdict) == ["appraise.min_tcb"] * 2
    assert refused.detail == "the reported snp patch level is too low; the reported ucode patch level is too low"


def test_an_endorser_that_is_wanted_is_missed_where_no_endorsement_is_given(amd: Amd) -> None:
    wanted = replace(ANYTHING, measurement=Endorser("did:x509:0", "images", 1))
    assert codes(judged(amd, amd.report(MILAN), expected=wanted)) == ["evidence.endorsement"]


def test_bytes_that_are_no_report_give_none(amd: Amd) -> None:
    verdict = judged(amd, b"")
    for asked in (verdict.require, verdict.require_report):
        with pytest.raises(SnpError) as caught:
            asked()
        assert caught.value.code == "format.size"
    report = amd.report(MILAN)
    refused = judged(amd, report, expected=replace(ANYTHING, host_data=bytes(range(32))))
    assert refused.require_report().raw == report
    with pytest.raises(SnpError, match="host_data"):
        refused.require()


def test_a_moment_without_a_zone_is_the_callers_mistake(amd: Amd) -> None:
    with pytest.raises(SnpError, match="needs a time zone") as caught:
        verify(amd.report(MILAN), amd.chain(MILAN), now=NOW.replace(tzinfo=None), expected=ANYTHING, roots=amd.roots)
    assert caught.value.code == "usage"
