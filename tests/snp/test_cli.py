# SPDX-License-Identifier: Apache-2.0
"""`parma verify` as a relying party uses it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from parma_snp import evidence as documents
from parma_snp.cli import add_snp_commands
from parma_snp.evidence import Evidence
from parma_snp.explain import REASONS
from tests.snp.conftest import MEASUREMENT, REPORT_DATA, Emulated

POLICY = b"package policy\n"
AT = ("--at", "2026-01-01")


def parma(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="parma")
    add_snp_commands(parser.add_subparsers(required=True))
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


@pytest.fixture
def files(emulated: Emulated, tmp_path: Path) -> Path:
    report = emulated.authority.sign_report(
        report_data=REPORT_DATA,
        host_data=Evidence("none", POLICY).policy_sha256,
        measurement=MEASUREMENT,
        report_id=bytes(32),
    )
    evidence = Evidence("emulated", POLICY, report, emulated.authority.certificate_chain, REPORT_DATA)
    (tmp_path / "evidence.json").write_text(evidence.dumps())
    (tmp_path / "policy.rego").write_bytes(POLICY)
    (tmp_path / "root.pem").write_bytes(emulated.authority.root_file.read_bytes())
    return tmp_path


FRESH = ("--report-data", REPORT_DATA.hex())


def wanted(files: Path, *fresh: str) -> tuple[str, ...]:
    """What the evidence fulfils; ``fresh`` replaces how its freshness is judged."""
    policy = ("--policy", str(files / "policy.rego"))
    fresh = fresh or FRESH
    return "verify", str(files / "evidence.json"), *policy, "--measurement", MEASUREMENT.hex(), *AT, *fresh


def allowed(files: Path) -> tuple[str, ...]:
    return "--allow-emulated", "--emulated-root", str(files / "root.pem")


def test_emulated_evidence_is_accepted_with_both_flags(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files)) == 0
    output = capsys.readouterr().out
    assert output.startswith("ACCEPTED (EMULATED")
    assert "NOT CHECKED" not in output


def test_it_is_refused_without_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files)) == 1
    assert "emulated.not_allowed" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["--allow-emulated", "--emulated-root"])
def test_one_flag_alone_is_a_usage_error(files: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"--allow-emulated": ["--emulated-root", str(files / "root.pem")], "--emulated-root": ["--allow-emulated"]}
    assert parma(*wanted(files), *flags[missing]) == 2
    assert "go together" in capsys.readouterr().err


def test_without_a_nonce_nothing_is_verified(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in wanted(files) if word not in FRESH]
    with pytest.raises(SystemExit) as caught:
        parma(*arguments, *allowed(files))
    assert caught.value.code == 2
    assert "--nonce" in capsys.readouterr().err


def test_freshness_is_waived_only_by_a_flag_that_says_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files, "--dangerously-accept-replayed-evidence"), *allowed(files)) == 0
    assert "NOT CHECKED: report_data" in capsys.readouterr().out


def test_a_nonce_is_checked_as_the_guest_bound_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files, "--nonce", REPORT_DATA.hex()), *allowed(files)) == 1
    assert "appraise.report_data" in capsys.readouterr().out


def test_json_names_the_failure(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files, "--report-data", "00" * 64), *allowed(files), "--json") == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["accepted"] is False
    assert verdict["emulated"] is True
    assert [failure["code"] for failure in verdict["failures"]] == ["appraise.report_data"]


def test_another_measurement_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [part if part != MEASUREMENT.hex() else "ff" * 48 for part in wanted(files)]
    assert parma(*arguments, *allowed(files)) == 1
    assert "appraise.measurement" in capsys.readouterr().out


def test_evidence_that_is_no_evidence_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "evidence.json").write_text("{}")
    assert parma(*wanted(files), "--json") == 1
    assert json.loads(capsys.readouterr().out)["failures"][0]["code"] == "evidence.format"


def test_missing_files_are_errors_not_refusals(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "policy.rego").unlink()
    assert parma(*wanted(files)) == 2
    assert capsys.readouterr().err.startswith("parma verify: ")


@pytest.mark.parametrize(
    "option",
    [
        ("--measurement", "00"),
        ("--report-data", "zz"),
        ("--nonce", "00"),
        ("--at", "tomorrow"),
        ("--min-tcb", "snp"),
        ("--min-tcb", "snp=256"),
        ("--min-tcb", "snp=1,snp=2"),
        ("--min-tcb", "psp=1"),
        ("--vmpl", "4"),
        ("--product", "Rome"),
    ],
)
def test_malformed_options_are_usage_errors(files: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parma(*wanted(files), *option)
    assert caught.value.code == 2


def test_explain_gives_each_check_its_reason_and_source(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files, "--report-data", "00" * 64), *allowed(files), "--explain") == 1
    output = capsys.readouterr().out
    for name, reason in REASONS.items():
        if name not in ("endorsement",):
            assert f". {name}: " in output
            assert reason.source[:60] in output.replace("\n           ", " ")
    assert "freshness: FAILED" in output
    assert "measurement: passed" in output


def test_explained_json_carries_the_same(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files), "--explain", "--json") == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(check["why"] and check["source"] for check in checks)
    (measurement,) = (check for check in checks if check["name"] == "measurement")
    assert (measurement["wanted"], measurement["found"]) == (MEASUREMENT.hex(), MEASUREMENT.hex())


def test_a_bare_report_is_judged_with_certificates_from_elsewhere(
    files: Path, emulated: Emulated, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "report.bin").write_bytes(documents.parse((files / "evidence.json").read_bytes()).report)
    (files / "chain.pem").write_text(emulated.authority.certificate_chain)
    arguments = ["verify", str(files / "report.bin"), *wanted(files)[2:], *allowed(files)]
    assert parma(*arguments) == 1
    assert "https://kdsintf.amd.com/vcek/v1/Milan/" in capsys.readouterr().out
    assert parma(*arguments, "--certificates", str(files / "chain.pem")) == 0


@pytest.mark.parametrize("bare", [False, True])
def test_a_policy_that_forbids_nothing_is_refused_unless_allowed(
    files: Path, emulated: Emulated, capsys: pytest.CaptureFixture[str], bare: bool
) -> None:
    policy = POLICY + b"permissive := true\n"
    report = emulated.authority.sign_report(
        report_data=REPORT_DATA,
        host_data=Evidence("none", policy).policy_sha256,
        measurement=MEASUREMENT,
        report_id=bytes(32),
    )
    evidence = Evidence("emulated", policy, report, emulated.authority.certificate_chain, REPORT_DATA)
    (files / "evidence.json").write_bytes(report if bare else evidence.dumps().encode())
    (files / "policy.rego").write_bytes(policy)
    (files / "chain.pem").write_text(emulated.authority.certificate_chain)
    arguments = [*wanted(files), *allowed(files), "--certificates", str(files / "chain.pem")]
    assert parma(*arguments) == 1
    assert "evidence.permissive" in capsys.readouterr().out
    assert parma(*arguments, "--allow-permissive") == 0


@pytest.mark.parametrize("flags", [("--min-svn", "1"), ("--feed", "x")])
def test_options_of_an_endorser_need_one(
    files: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert parma(*wanted(files), *flags) == 2
    assert "--endorser" in capsys.readouterr().err


def test_an_endorser_needs_a_minimum_version(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in wanted(files) if word not in ("--measurement", MEASUREMENT.hex())]
    assert parma(*arguments, "--endorser", "did:x509:0:sha256:x::eku:1.2.3") == 2
    assert "--min-svn" in capsys.readouterr().err
