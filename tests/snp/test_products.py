# SPDX-License-Identifier: Apache-2.0
"""Every product, report version and kind of key: what must verify, and each single thing that must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_snp import der
from parma_snp.certificates import CertificateChain
from parma_snp.expected import UNCHECKED, Expected
from parma_snp.report import COMPONENT_SIZE, GENOA, MILAN, PRODUCTS, SIGNED_SIZE, TURIN, VERSIONS, Product
from parma_snp.verify import verify
from tests.snp.amd import CHIP_ID, CPUID, END, LEVELS, NOW, Amd

ANYTHING = Expected(UNCHECKED, UNCHECKED, UNCHECKED, vmpl=UNCHECKED, vlek_csp_ids=UNCHECKED, min_tcb={})
every_product = pytest.mark.parametrize("product", PRODUCTS)


def codes(amd: Amd, report: bytes, chain: CertificateChain, expected: Expected = ANYTHING, **more: Any) -> list[str]:
    """Why it is refused; nothing when it is accepted."""
    verdict = verify(report, chain, **{"now": NOW, "expected": expected, "roots": amd.roots, **more})
    assert verdict.accepted == (not verdict.failures)
    return [failure.code for failure in verdict.failures]


@every_product
@pytest.mark.parametrize("role", ["VCEK", "VLEK"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_and_kind_of_key_verifies(amd: Amd, product: Product, version: int, role: str) -> None:
    assert codes(amd, amd.report(product, version, role), amd.chain(product, role), product=product) == []


@every_product
@pytest.mark.parametrize("version", [0, 1, 6, 1 << 31])
def test_no_other_version_is_understood(amd: Amd, product: Product, version: int) -> None:
    assert codes(amd, amd.report(product, version), amd.chain(product)) == ["format.version"]


@every_product
def test_a_key_is_not_taken_for_one_of_the_other_kind(amd: Amd, product: Product) -> None:
    for report, chain in (("VCEK", "VLEK"), ("VLEK", "VCEK")):
        assert codes(amd, amd.report(product, role=report), amd.chain(product, chain)) == ["bind.signing_key"]


@every_product
def test_each_patch_level_binds_certificate_and_report(amd: Amd, product: Product) -> None:
    for name, level in LEVELS[product].items():
        report = amd.report(product, levels={**LEVELS[product], name: (level + 128) % 256})
        assert codes(amd, report, amd.chain(product)) == ["bind.tcb"]


@every_product
@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_levels_of_every_size_are_read(amd: Amd, product: Product, level: int) -> None:
    report = amd.report(product, levels={**LEVELS[product], "ucode": level})
    chain = amd.chain(product, extensions={"UCODE_SPL": der.encode_integer(level)})
    assert codes(amd, report, chain, replace(ANYTHING, min_tcb={"ucode": level})) == []
    if level < 255:
        assert codes(amd, report, chain, replace(ANYTHING, min_tcb={"ucode": level + 1})) == ["appraise.min_tcb"]


@every_product
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"BL_SPL": None}, "cert.extensions"),
        ({"SNP_SPL": None}, "cert.extensions"),
        ({"UCODE_SPL": b"\2\1\xdb"}, "cert.extensions"),
        ({"TEE_SPL": b"\2\2\0\4"}, "cert.extensions"),
        ({"STRUCT_VERSION": None}, "cert.extensions"),
        ({"STRUCT_VERSION": b"\2\1\2"}, "bind.struct_version"),
        ({"PRODUCT_NAME": der.encode_ia5("Venice-A0")}, "cert.product"),
        ({"HWID": None}, "cert.extensions"),
        ({"HWID": bytes(7)}, "cert.extensions"),
        ({"HWID": bytes(65)}, "cert.extensions"),
        ({"CSP_ID": der.encode_ia5("CN=x")}, "cert.extensions"),
    ],
    ids=str,
)
def test_odd_extensions_of_a_chips_key_are_refused(
    amd: Amd, product: Product, change: Mapping[str, bytes | None], code: str
) -> None:
    assert codes(amd, amd.report(product), amd.chain(product, extensions=change)) == [code]


@every_product
def test_the_chip_id_may_be_wrapped_and_must_be_the_reports(amd: Amd, product: Product) -> None:
    chip = CHIP_ID[product]
    assert codes(amd, amd.report(product), amd.chain(product, extensions={"HWID": bytes((4, len(chip))) + chip})) == []
    assert codes(amd, amd.report(product), amd.chain(product, extensions={"HWID": chip[::-1]})) == ["bind.chip_id"]
    masked = amd.report(product, chip_id=b"")
    assert codes(amd, masked, amd.chain(product)) == ["bind.chip_id"]
    assert codes(amd, masked, amd.chain(product), replace(ANYTHING, allow_masked_chip_id=True)) == []


@every_product
def test_a_chip_id_that_differs_is_told_from_one_that_is_masked(amd: Amd, product: Product) -> None:
    other = amd.chain(product, extensions={"HWID": CHIP_ID[product][::-1]})
    for report, chain, message in (
        (amd.report(product), other, "the certificate is of another chip"),
        (amd.report(product, chip_id=b""), amd.chain(product), "CHIP_ID is masked"),
    ):
        verdict = verify(report, chain, now=NOW, expected=ANYTHING, roots=amd.roots)
        assert [failure.message for failure in verdict.failures] == [message]


@every_product
def test_a_signature_of_zeros_is_an_absent_one(amd: Amd, product: Product) -> None:
    good = amd.report(product)
    zeros = good[:SIGNED_SIZE] + bytes(len(good) - SIGNED_SIZE)
    half = good[: SIGNED_SIZE + COMPONENT_SIZE] + bytes(len(good) - SIGNED_SIZE - COMPONENT_SIZE)
    assert codes(amd, zeros, amd.chain(product)) == ["sig.absent"]
    assert codes(amd, half, amd.chain(product)) == ["sig.invalid"]


@every_product
def test_turin_alone_has_an_fmc(amd: Amd, product: Product) -> None:
    change: dict[str, bytes | None] = {"FMC_SPL": None if product == TURIN else der.encode_integer(1)}
    assert codes(amd, amd.report(product), amd.chain(product, extensions=change)) == ["cert.extensions"]
    minimum = replace(ANYTHING, min_tcb={"fmc": 1})
    assert codes(amd, amd.report(product), amd.chain(product), minimum) == (
        [] if product == TURIN else ["appraise.min_tcb"]
    )


@pytest.mark.parametrize(
    ("product", "family", "model"),
    [(MILAN, 0x19, 0x0F), (GENOA, 0x19, 0x1F), (GENOA, 0x19, 0xA0), (GENOA, 0x19, 0xAF), (TURIN, 0x1A, 0x11)],
)
def test_models_of_a_product_are_known(amd: Amd, product: Product, family: int, model: int) -> None:
    assert codes(amd, amd.report(product, cpuid=(family, model, 0)), amd.chain(product)) == []


@every_product
@pytest.mark.parametrize("cpuid", [(0, 0, 0), (0x19, 0x20, 0), (0x19, 0xB0, 0), (0x1A, 0x12, 0), (0x1A, 0x50, 0)])
def test_other_models_are_of_no_product(amd: Amd, product: Product, cpuid: tuple[int, int, int]) -> None:
    assert codes(amd, amd.report(product, cpuid=cpuid), amd.chain(product)) == ["bind.product_fms"]


@every_product
def test_another_products_processor_or_chain_is_refused(amd: Amd, product: Product) -> None:
    for other in set(PRODUCTS) - {product}:
        assert codes(amd, amd.report(product, cpuid=CPUID[other]), amd.chain(product)) == ["bind.product_fms"]
        assert codes(amd, amd.report(product), amd.chain(product), product=other) == ["cert.product"]
        mixed = replace(amd.chain(product), intermediate=amd.chain(other).intermediate, root=amd.chain(other).root)
        assert codes(amd, amd.report(product), mixed) == ["cert.chain_signature"]


@every_product
def test_only_the_right_authority_issues_a_kind_of_key(amd: Amd, product: Product) -> None:
    for role, issuer in (("VCEK", f"SEV-VLEK-{product}"), ("VLEK", f"SEV-{product}")):
        chain = replace(
            amd.chain(product, role),
            leaf=amd.leaf(product, role, issuer, {}),
            intermediate=amd.authority(issuer, f"ARK-{product}"),
        )
        assert codes(amd, amd.report(product, role=role), chain) == ["cert.role"]
    no_authority = replace(amd.chain(product), intermediate=amd.authority(f"SEV-{product}", f"ARK-{product}", ca=False))
    assert codes(amd, amd.report(product), no_authority) == ["cert.role"]


@every_product
def test_validity_is_judged_to_the_second(amd: Amd, product: Product) -> None:
    report, chain = amd.report(product), amd.chain(product)
    assert codes(amd, report, chain, now=END) == []
    assert codes(amd, report, chain, now=END + timedelta(seconds=1)) == ["cert.validity"]


@every_product
@pytest.mark.parametrize("role", ["VCEK", "VLEK"])
def test_a_revoked_intermediate_is_refused(amd: Amd, product: Product, role: str) -> None:
    ours, others = (f"SEV-{product}", f"SEV-VLEK-{product}")[:: 1 if role == "VCEK" else -1]
    report = amd.report(product, role=role)
    assert codes(amd, report, amd.chain(product, role, crl=amd.crl(product)), crl="require") == []
    assert codes(amd, report, amd.chain(product, role, crl=amd.crl(product, others))) == []
    assert codes(amd, report, amd.chain(product, role, crl=amd.crl(product, others, ours))) == ["cert.revoked"]
    assert codes(amd, report, amd.chain(product, role, crl=amd.crl(product, ours)), crl="off") == []


@every_product
def test_whether_a_list_was_consulted_is_told(amd: Amd, product: Product) -> None:
    for crl, told in ((amd.crl(product), "not listed by the CRL"), (None, "no CRL consulted (mode: use-if-present)")):
        chain = amd.chain(product, crl=crl)
        verdict = verify(amd.report(product), chain, now=NOW, expected=ANYTHING, roots=amd.roots)
        assert [check.detail for check in verdict.checks if check.name == "revocation"] == [told]
        root = "a chain from a VCEK or VLEK to a pinned root"
        assert [check.wanted for check in verdict.checks if check.name == "certificates"] == [root]


@every_product
def test_only_a_current_list_of_the_root_counts(amd: Amd, product: Product) -> None:
    report = amd.report(product)
    stale, foreign = amd.crl(product, until=NOW - timedelta(days=1)), rsa.generate_private_key(65537, 2048)
    assert codes(amd, report, amd.chain(product, crl=stale)) == ["cert.crl_stale"]
    assert codes(amd, report, amd.chain(product, crl=amd.crl(product, signer=foreign))) == ["cert.crl_signature"]
    assert codes(amd, report, amd.chain(product, crl=b"\x30\0")) == ["cert.parse"]
    assert codes(amd, report, amd.chain(product), crl="require") == ["cert.crl_missing"]


@every_product
@pytest.mark.parametrize("offset", [0x4C, 0x18B, 0x1EB, 0x1EF, 0x208, 0x29F])
def test_reserved_bytes_are_zero(amd: Amd, product: Product, offset: int) -> None:
    assert codes(amd, amd.report(product, 5, poke={offset: b"\1"}), amd.chain(product)) == ["format.reserved"]


@every_product
@pytest.mark.parametrize(
    ("poke", "code"),
    [
        ({0x08: (0xB0000).to_bytes(8, "little")}, "appraise.debug"),
        ({0x08: (0x70000).to_bytes(8, "little")}, "appraise.migrate_ma"),
        ({0x30: b"\4"}, "appraise.vmpl"),
        ({0x30: b"\xff" * 4}, "appraise.vmpl"),
        ({0x1E8: b"\1"}, "appraise.provisional"),
        ({0x48: b"\2"}, "sig.absent"),
        ({0x48: b"\x1c"}, "sig.absent"),
        ({0x48: b"\x08"}, "format.signing_key"),
        ({0x08: (0x10000).to_bytes(8, "little")}, "format.policy_bit17"),
    ],
    ids=str,
)
def test_what_a_genuine_report_may_not_say(amd: Amd, product: Product, poke: Mapping[int, bytes], code: str) -> None:
    assert codes(amd, amd.report(product, 5, poke=poke), amd.chain(product)) == [code]


@every_product
def test_nobody_else_trusts_these_roots(amd: Amd, product: Product) -> None:
    assert not verify(amd.report(product), amd.chain(product), now=NOW, expected=ANYTHING).authentic
