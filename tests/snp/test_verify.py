# SPDX-License-Identifier: Apache-2.0
"""Verification as a whole: no change survives, no input raises, nothing is trusted by default."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtool import verification_bench
from parma_snp.anchors import AMD, TrustAnchors, bundled, emulated_root, fingerprint
from parma_snp.certificates import CertificateChain, complete_chain
from parma_snp.errors import SnpError
from parma_snp.expected import UNCHECKED, Expected, default_minimum_tcb
from parma_snp.report import PRODUCTS, parse
from parma_snp.verify import Verdict, _check_emulated, verify
from tests.snp.conftest import HOST_DATA, MEASUREMENT, NOW, REPORT_DATA, Emulated

STRICT = Expected(HOST_DATA, MEASUREMENT, REPORT_DATA)
ANYTHING = Expected(UNCHECKED, UNCHECKED, UNCHECKED, vmpl=UNCHECKED, vlek_csp_ids=UNCHECKED, min_tcb={})
REAL = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp" / "positive"
GARBAGE = CertificateChain(b"", b"\x30\x00", b"\xff" * 100)


def real(case: str) -> tuple[bytes, CertificateChain, datetime]:
    """Evidence of a real machine, and a moment at which its certificates are valid."""
    folder = REAL / case
    report, *chain = ((folder / name).read_bytes() for name in ("report.bin", "vek.der", "ask.der", "ark.der"))
    now = datetime.fromisoformat(json.loads((folder / "case.json").read_text())["verify_time"])
    return report, CertificateChain(*chain), now


def judge(
    report: bytes, chain: CertificateChain, roots: TrustAnchors, expected: Expected = STRICT, now: datetime = NOW
) -> Verdict:
    return verify(report, chain, now=now, expected=expected, roots=roots, allow_emulated=roots.emulated)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def survivors(report: bytes, chain: CertificateChain, roots: TrustAnchors, now: datetime, step: int = 1) -> list[int]:
    """The bits of a report (every ``step``-th) that can be flipped without a clean refusal."""
    bits = range(0, 8 * len(report), step)
    return [bit for bit in bits if judge(flipped(report, bit), chain, roots, ANYTHING, now).authentic]


def test_no_flipped_bit_of_a_report_survives(emulated: Emulated) -> None:
    assert survivors(emulated.report, emulated.chain, emulated_root(emulated.root), NOW, step=13) == []


@pytest.mark.parametrize("part", ["leaf", "intermediate", "root"])
def test_no_flipped_bit_of_a_certificate_survives(emulated: Emulated, part: str) -> None:
    der: bytes = getattr(emulated.chain, part)
    roots = emulated_root(emulated.root)
    accepted = [
        bit
        for bit in range(0, 8 * len(der), 67)
        if judge(emulated.report, replace(emulated.chain, **{part: flipped(der, bit)}), roots).authentic
    ]
    assert accepted == []


def test_unused_bits_of_a_signature_are_refused(emulated: Emulated) -> None:
    """Parsers ignore that byte; a certificate would have many encodings."""
    position = len(emulated.chain.leaf) - 512 - 1
    leaf = bytearray(emulated.chain.leaf)
    leaf[position] = 1
    verdict = judge(emulated.report, replace(emulated.chain, leaf=bytes(leaf)), emulated_root(emulated.root))
    assert verdict.failures[0].code == "cert.parse"


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
@pytest.mark.parametrize(
    ("case", "step"), [("turin-v5-aci", 1), ("milan-v2-baremetal", 11), ("genoa-v3-azvm", 11)], ids=str
)
def test_no_flipped_bit_of_a_real_report_survives(case: str, step: int) -> None:
    """Of one report each bit, of the others a part: a verification with its chain takes some milliseconds."""
    report, chain, now = real(case)
    assert judge(report, chain, AMD, ANYTHING, now).authentic
    assert survivors(report, chain, AMD, now, step) == []


@given(st.binary(max_size=1300), st.binary(max_size=300))
def test_garbage_gives_a_verdict_never_an_exception(report: bytes, certificate: bytes) -> None:
    chain = CertificateChain(certificate, certificate, certificate)
    verdict = verify(report, chain, now=NOW, expected=STRICT)
    assert not verdict.accepted
    assert verdict.failures


def test_good_report_with_garbage_certificates_is_a_verdict(emulated: Emulated) -> None:
    verdict = judge(emulated.report, GARBAGE, AMD)
    assert [failure.code for failure in verdict.failures] == ["cert.parse"]


def test_verdict_without_acceptance_raises_its_first_failure(emulated: Emulated) -> None:
    verdict = judge(emulated.report, emulated.chain, AMD)
    with pytest.raises(SnpError) as caught:
        verdict.require()
    assert caught.value.code == "cert.root_untrusted"


def test_all_failures_of_the_appraisal_are_listed(emulated: Emulated) -> None:
    expected = Expected(bytes(32), bytes(48), bytes(64), vmpl=1)
    verdict = judge(emulated.report, emulated.chain, emulated_root(emulated.root), expected)
    assert verdict.authentic
    assert not verdict.accepted
    assert [failure.code for failure in verdict.failures] == [
        "appraise.report_data",
        "appraise.host_data",
        "appraise.measurement",
        "appraise.vmpl",
    ]
    assert all(failure.expected and failure.found for failure in verdict.failures)


def test_one_of_several_measurements_is_enough(emulated: Emulated) -> None:
    expected = replace(STRICT, measurement=(bytes(48), MEASUREMENT))
    assert judge(emulated.report, emulated.chain, emulated_root(emulated.root), expected).accepted


def test_every_step_says_what_was_wanted_and_found(emulated: Emulated) -> None:
    verdict = judge(emulated.report, emulated.chain, emulated_root(emulated.root))
    steps = {check.name: (check.wanted, check.found) for check in verdict.checks}
    assert list(steps)[:8] == [
        *("form", "certificates", "revocation", "signature", "product", "patch levels", "chip", "emulation")
    ]
    form = "version 3, 1184 bytes, reserved fields zero"
    assert steps["form"] == ("a report of 1184 bytes, version 2 to 5", form)
    root = "the named emulated root"
    found = f"VCEK of Milan up to {root}, valid at {NOW.isoformat()}"
    assert steps["certificates"] == (f"a chain from a VCEK or VLEK to {root}", found)
    assert steps["revocation"] == ("CRL mode use-if-present", "no CRL consulted (mode: use-if-present)")
    assert steps["signature"] == ("by the VCEK", "valid")
    agree = "certificate and report agree"
    assert steps["product"] == (agree, "Milan")
    assert steps["patch levels"] == (agree, "bl=0 tee=0 snp=0 ucode=0")
    assert steps["chip"] == (agree, (b"EMULATED-NOT-SNP" * 4).hex())
    assert steps["emulation"] == ("the marks of emulation", "")
    details = {check.name: check.detail for check in verdict.checks}
    assert details["signature"] == "ECDSA P-384 by this VCEK"
    assert details["emulation"] == "the report says that it is emulated"
    assert {details[name] for name in list(steps)[8:]} == {"as required"}
    assert (verdict.product, verdict.role, verdict.emulated) == ("Milan", "VCEK", True)


def test_a_step_that_fails_is_the_last_and_says_why(emulated: Emulated) -> None:
    verdict = judge(flipped(emulated.report, 8 * 0x50), emulated.chain, emulated_root(emulated.root))
    assert [check.name for check in verdict.checks] == ["form", "certificates", "revocation", "signature"]
    last = verdict.checks[-1]
    assert [failure.code for failure in last.failures] == ["sig.invalid"]
    assert (last.detail, last.wanted) == (last.failures[0].message, last.failures[0].expected)
    assert (verdict.authentic, verdict.role) == (False, "VCEK")
    assert judge(b"", emulated.chain, emulated_root(emulated.root)).checks[-1].name == "form"
    assert judge(emulated.report, GARBAGE, AMD).checks[-1].name == "certificates"


@pytest.mark.parametrize("place", [0x10, 0x20, 0x1A0, 0x3F, 0x180, 0x1E7, 0x1F0])
def test_an_emulated_report_that_does_not_say_so_is_refused(emulated: Emulated, place: int) -> None:
    parsed = parse(flipped(emulated.report, 8 * place))
    with pytest.raises(SnpError, match="does not say that it is emulated") as caught:
        _check_emulated(parsed)
    assert caught.value.code == "emulated.marker"
    _check_emulated(parse(emulated.report))


def test_what_is_not_checked_is_named(emulated: Emulated) -> None:
    verdict = judge(emulated.report, emulated.chain, emulated_root(emulated.root), ANYTHING)
    assert verdict.accepted
    assert verdict.unchecked == ("host_data", "measurement", "report_data", "vmpl", "vlek_csp_ids")


@pytest.mark.parametrize(
    "fields",
    [
        (b"", MEASUREMENT, REPORT_DATA),
        (HOST_DATA, b"", REPORT_DATA),
        (HOST_DATA, (), REPORT_DATA),
        (HOST_DATA, MEASUREMENT, REPORT_DATA[:63]),
    ],
    ids=["host_data", "measurement", "no measurement", "report_data"],
)
def test_expectation_that_cannot_be_met_is_a_usage_error(fields: tuple[bytes, bytes, bytes]) -> None:
    with pytest.raises(SnpError) as caught:
        Expected(*fields)
    assert caught.value.code == "usage"


@pytest.mark.parametrize("name", ["image_id", "family_id", "report_id", "chip_id"])
def test_an_identifier_of_another_length_is_a_usage_error(name: str) -> None:
    with pytest.raises(SnpError, match=name):
        replace(STRICT, **{name: b"\1" * 15})  # type: ignore[arg-type]  # the name is one of these fields


def test_unknown_tcb_component_is_a_usage_error() -> None:
    with pytest.raises(SnpError, match="microcode"):
        Expected(HOST_DATA, MEASUREMENT, REPORT_DATA, min_tcb={"microcode": 1})


def test_time_without_zone_is_a_usage_error(emulated: Emulated) -> None:
    with pytest.raises(SnpError, match="time zone"):
        verify(emulated.report, emulated.chain, now=NOW.replace(tzinfo=None), expected=STRICT)


def test_bundled_roots_are_the_pinned_ones() -> None:
    assert {fingerprint(bundled("ark", product)): product for product in PRODUCTS} == dict(AMD.roots)


def test_minimum_levels_are_dated_and_cover_every_product() -> None:
    table = default_minimum_tcb()
    assert datetime.fromisoformat(table.reviewed)
    assert "AMD-SB" in table.source
    assert set(table.products) == set(PRODUCTS)


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_a_product_without_a_known_minimum_is_refused_until_one_is_named() -> None:
    report, chain, now = real("turin-v5-aci")
    strict = replace(ANYTHING, min_tcb=None)
    verdict = judge(report, chain, AMD, strict, now)
    (failure,) = verdict.failures
    assert failure.code == "appraise.min_tcb"
    assert "none for Turin" in next(check.wanted for check in verdict.checks if check.name == "minimum TCB")
    assert "--min-tcb" in failure.hint
    assert judge(report, chain, AMD, replace(strict, min_tcb={"snp": 4, "fmc": 1}), now).accepted
    assert not judge(report, chain, AMD, replace(strict, min_tcb={"snp": 5}), now).accepted


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_turins_chip_id_may_be_given_in_its_own_eight_bytes() -> None:
    report, chain, now = real("turin-v5-aci")
    chip = report[0x1A0:0x1E0]
    for wanted in (chip[:8], chip):
        assert judge(report, chain, AMD, replace(ANYTHING, chip_id=wanted), now).accepted
    (failure,) = judge(report, chain, AMD, replace(ANYTHING, chip_id=chip[:7] + b"\0"), now).failures
    assert failure.code == "appraise.chip_id"


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_a_cloud_providers_key_passes_only_by_name() -> None:
    report, chain, now = real("milan-v3-vlek-aws-vmpl1")
    strict = replace(ANYTHING, vlek_csp_ids=(), allow_provisional=True)
    (failure,) = judge(report, chain, AMD, strict, now).failures
    assert (failure.code, bool(failure.found)) == ("appraise.vlek_not_allowed", True)
    assert judge(report, chain, AMD, replace(strict, vlek_csp_ids=(failure.found,)), now).accepted
    assert not judge(report, chain, AMD, replace(strict, vlek_csp_ids=("other",)), now).accepted


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
@pytest.mark.parametrize(
    ("case", "product"), [("turin-v5-aci", "Turin"), ("milan-v3-vlek-aws-vmpl1", "Milan"), ("genoa-v3-azvm", "Genoa")]
)
def test_leaf_alone_is_completed_with_bundled_certificates(case: str, product: str) -> None:
    leaf, intermediate, root = ((REAL / case / f"{name}.der").read_bytes() for name in ("vek", "ask", "ark"))
    assert complete_chain(leaf) == CertificateChain(leaf, intermediate, root)
    assert AMD.product(root) == product


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_real_evidence_is_refused_under_an_emulated_root(emulated: Emulated) -> None:
    folder, now = REAL / "turin-v5-aci", datetime(2026, 3, 1, tzinfo=UTC)
    files = [(folder / name).read_bytes() for name in ("report.bin", "vek.der", "ask.der", "ark.der")]
    chain = CertificateChain(*files[1:])
    untrusted = judge(files[0], chain, emulated_root(emulated.root), ANYTHING, now)
    assert [failure.code for failure in untrusted.failures] == ["cert.root_untrusted"]
    # Even AMD's own root, wrongly given as the emulated one, does not make it emulated evidence.
    mistaken = judge(files[0], chain, emulated_root(chain.root), ANYTHING, now)
    assert [failure.code for failure in mistaken.failures] == ["emulated.marker"]


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_default_minimum_refuses_old_firmware() -> None:
    folder = REAL / "milan-v2-aci-parma"
    files = [(folder / name).read_bytes() for name in ("report.bin", "vek.der", "ask.der", "ark.der")]
    now = datetime(2023, 6, 1, tzinfo=UTC)
    verdict = judge(files[0], CertificateChain(*files[1:]), AMD, replace(ANYTHING, min_tcb=None), now)
    assert "appraise.min_tcb" in [failure.code for failure in verdict.failures]


def test_the_verifier_loads_only_what_it_needs() -> None:
    """Neither endorsements, nor launching, nor anything of the host comes along."""
    code = "import sys, parma_snp.verify, parma_snp.evidence; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    packages = {name.split(".")[0] for name in loaded}
    ours = {name.removeprefix("parma_snp.") for name in loaded if name.startswith("parma_snp.")}
    assert "cryptography" in packages
    foreign = {"cbor2", "parma_cose", "parma_wire", "parma_shim", "parma_policy", "google", "grpc", "sevsnpmeasure"}
    assert packages & foreign == set()
    assert ours == {
        *(
            "anchors",
            "appraise",
            "certificates",
            "codes",
            "der",
            "errors",
            "evidence",
            "expected",
            "extensions",
            "oids",
        ),
        *("permissive", "report", "strict_json", "verify"),
    }


def test_a_verification_takes_less_than_ten_milliseconds() -> None:
    """The fastest of several: the machine may be busy, the code may not be slow."""
    assert min(verification_bench.verification_times(30)) < 10
