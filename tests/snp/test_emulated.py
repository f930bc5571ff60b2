# SPDX-License-Identifier: Apache-2.0
"""The emulated secure processor works like a real one, and can never pass for one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from parma_snp import oids
from parma_snp.anchors import AMD, emulated_root, other_roots
from parma_snp.certificates import CertificateChain
from parma_snp.emulated import ensure_authority, main
from parma_snp.errors import SnpError
from parma_snp.expected import Expected
from parma_snp.report import MILAN, parse
from parma_snp.verify import Verdict, verify
from tests.snp.conftest import HOST_DATA, MEASUREMENT, NOW, REPORT_DATA, Emulated

EXPECTED = Expected(host_data=HOST_DATA, measurement=MEASUREMENT, report_data=REPORT_DATA)


def judge(
    emulated: Emulated, report: bytes | None = None, expected: Expected = EXPECTED, now: datetime = NOW
) -> Verdict:
    return verify(
        report or emulated.report,
        emulated.chain,
        now=now,
        expected=expected,
        roots=emulated_root(emulated.root),
        allow_emulated=True,
    )


def codes(verdict: Verdict) -> list[str]:
    return [failure.code for failure in verdict.failures]


@pytest.mark.parametrize("version", [3, 5])
def test_report_is_accepted_when_asked_for_twice(emulated: Emulated, version: int) -> None:
    verdict = judge(emulated, emulated.sign(version=version))
    assert verdict.accepted
    assert verdict.emulated
    assert verdict.require().host_data == HOST_DATA


def test_report_is_refused_without_the_second_word(emulated: Emulated) -> None:
    with pytest.raises(SnpError) as caught:
        verify(emulated.report, emulated.chain, now=NOW, expected=EXPECTED, roots=emulated_root(emulated.root))
    assert caught.value.code == "emulated.not_allowed"


@pytest.mark.parametrize("allow", [False, True])
def test_report_is_refused_under_the_roots_of_amd(emulated: Emulated, allow: bool) -> None:
    verdict = verify(emulated.report, emulated.chain, now=NOW, expected=EXPECTED, roots=AMD, allow_emulated=allow)
    assert codes(verdict) == ["cert.root_untrusted"]
    assert not verdict.authentic
    assert not verdict.emulated


def test_marker_alone_keeps_it_out_even_when_the_root_is_trusted(emulated: Emulated) -> None:
    verdict = verify(
        emulated.report, emulated.chain, now=NOW, expected=EXPECTED, roots=other_roots({MILAN: emulated.root})
    )
    assert codes(verdict) == ["cert.extensions"]


def test_another_installation_is_not_trusted(emulated: Emulated, tmp_path: Path) -> None:
    other = Emulated(tmp_path / "other")
    verdict = verify(
        other.report,
        other.chain,
        now=NOW,
        expected=EXPECTED,
        roots=emulated_root(emulated.root),
        allow_emulated=True,
    )
    assert codes(verdict) == ["cert.root_untrusted"]


def test_any_minimum_firmware_level_refuses_it(emulated: Emulated) -> None:
    expected = Expected(HOST_DATA, MEASUREMENT, REPORT_DATA, min_tcb={"snp": 1})
    assert codes(judge(emulated, expected=expected)) == ["appraise.min_tcb"]


def test_debug_guest_is_refused(emulated: Emulated) -> None:
    assert codes(judge(emulated, emulated.sign(policy=0xB0000))) == ["appraise.debug"]


def test_all_certificates_carry_the_marker_and_the_disclaimer(emulated: Emulated) -> None:
    for pem in (emulated.chain.leaf, emulated.chain.intermediate, emulated.chain.root):
        certificate = x509.load_der_x509_certificate(pem)
        marker = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oids.EMULATION_MARKER))
        assert marker.critical
        assert "EMULATED - NOT AMD" in certificate.subject.rfc4514_string()


def test_report_says_in_its_ids_that_it_is_emulated(emulated: Emulated) -> None:
    report = parse(emulated.report)
    assert report.chip_id == b"EMULATED-NOT-SNP" * 4
    assert report.image_id == report.family_id == b"EMULATED-NOT-SNP"
    assert report.tcb_bytes("reported") == bytes(8)
    assert report.platform_info == 0


def test_certificates_expire(emulated: Emulated) -> None:
    late = NOW + timedelta(days=8 * 365)
    verdict = verify(
        emulated.report,
        emulated.chain,
        now=late,
        expected=EXPECTED,
        roots=emulated_root(emulated.root),
        allow_emulated=True,
    )
    assert codes(verdict) == ["cert.validity"]


def test_leaf_and_intermediate_swapped_are_refused(emulated: Emulated) -> None:
    chain = CertificateChain(emulated.chain.intermediate, emulated.chain.leaf, emulated.chain.root)
    verdict = verify(
        emulated.report,
        chain,
        now=NOW,
        expected=EXPECTED,
        roots=emulated_root(emulated.root),
        allow_emulated=True,
    )
    assert not verdict.authentic
    assert verdict.failures[0].code.startswith("cert.")


def test_second_use_takes_the_same_key(emulated: Emulated) -> None:
    assert ensure_authority(emulated.directory).certificate_chain == emulated.authority.certificate_chain


def test_storage_is_private(emulated: Emulated) -> None:
    assert emulated.directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in emulated.directory.iterdir()} == {0o600}


def test_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(SnpError) as caught:
        ensure_authority(tmp_path)
    assert caught.value.code == "emulated.storage"


def test_damaged_storage_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "authority.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SnpError, match="is damaged") as caught:
        ensure_authority(tmp_path)
    assert caught.value.code == "emulated.storage"


def _command(*arguments: str, stdin: bytes = REPORT_DATA) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "snp")}
    return subprocess.run(
        [sys.executable, "-m", "parma_snp.emulated", *arguments], input=stdin, capture_output=True, env=environment
    )


def _report_arguments(directory: Path) -> list[str]:
    launch = ["--host-data", HOST_DATA.hex(), "--measurement", MEASUREMENT.hex(), "--report-id", "01" * 32]
    return ["report", "--directory", str(directory), *launch, "--policy", "0x30000", "--vmpl", "0"]


def test_command_signs_what_it_reads(emulated: Emulated) -> None:
    done = _command(*_report_arguments(emulated.directory))
    assert (done.returncode, done.stderr) == (0, b"")
    assert judge(emulated, done.stdout).accepted


@pytest.mark.parametrize("stdin", [b"", b"\0" * 63, b"\0" * 65])
def test_command_wants_exactly_64_bytes(emulated: Emulated, stdin: bytes) -> None:
    done = _command(*_report_arguments(emulated.directory), stdin=stdin)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [[], ["report"], ["report", "--directory", "/x", "--host-data", "zz"]])
def test_command_answers_wrong_arguments_with_one_line(arguments: list[str]) -> None:
    done = _command(*arguments)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_processes_starting_together_agree_on_one_processor(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "snp")}
    command = [sys.executable, "-m", "parma_snp.emulated", *_report_arguments(directory)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(3)
    ]
    reports = [process.communicate(REPORT_DATA)[0] for process in running]
    processor = Emulated(directory)
    now = datetime.now(UTC)  # the command dates its certificates by the clock
    assert [judge(processor, report, now=now).accepted for report in reports] == [True, True, True]


def test_a_derived_key_follows_what_is_mixed_into_it(emulated: Emulated) -> None:
    authority, one, other = emulated.authority, bytes(48), b"m" * 48
    keys = {
        authority.derive_key(fields=9, measurement=one),
        authority.derive_key(fields=9, measurement=other),
        authority.derive_key(fields=9, measurement=one, policy=0xB0000),
        authority.derive_key(fields=8, measurement=one),
        authority.derive_key(fields=1, measurement=one),
    }
    assert len(keys) == 5
    assert {len(key) for key in keys} == {32}
    assert authority.derive_key(fields=9, measurement=one) in keys
    assert authority.derive_key(fields=8, measurement=one, policy=5) in keys, "a policy that is not mixed in"
    for wrong in (2, 16, -1):
        with pytest.raises(SnpError):
            authority.derive_key(fields=wrong, measurement=one)
    with pytest.raises(SnpError):
        authority.derive_key(fields=9, measurement=b"short")


def test_the_command_derives_the_same_key(emulated: Emulated, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    directory = emulated.authority.root_file.parent
    assert main(["key", "--directory", str(directory), "--measurement", "ab" * 48, "--fields", "9"]) == 0
    expected = emulated.authority.derive_key(fields=9, measurement=b"\xab" * 48)
    assert capfdbinary.readouterr().out == expected
