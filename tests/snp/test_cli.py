# SPDX-License-Identifier: Apache-2.0
"""`parma verify` as a relying party uses it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from parma_snp.cli import add_snp_commands
from parma_snp.evidence import Evidence
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


def wanted(files: Path) -> tuple[str, ...]:
    policy = ("--policy", str(files / "policy.rego"))
    return "verify", str(files / "evidence.json"), *policy, "--measurement", MEASUREMENT.hex(), *AT


def allowed(files: Path) -> tuple[str, ...]:
    return "--allow-emulated", "--emulated-root", str(files / "root.pem")


def test_emulated_evidence_is_accepted_with_both_flags(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files), "--report-data", REPORT_DATA.hex()) == 0
    output = capsys.readouterr().out
    assert output.startswith("ACCEPTED (EMULATED")
    assert "not checked" not in output


def test_it_is_refused_without_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files)) == 1
    assert "emulated.not_allowed" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["--allow-emulated", "--emulated-root"])
def test_one_flag_alone_is_a_usage_error(files: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"--allow-emulated": ["--emulated-root", str(files / "root.pem")], "--emulated-root": ["--allow-emulated"]}
    assert parma(*wanted(files), *flags[missing]) == 2
    assert "go together" in capsys.readouterr().err


def test_it_says_when_freshness_is_not_checked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files)) == 0
    assert "not checked: report_data" in capsys.readouterr().out


def test_a_nonce_is_checked_as_the_guest_bound_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files), "--nonce", REPORT_DATA.hex()) == 1
    assert "appraise.report_data" in capsys.readouterr().out


def test_json_names_the_failure(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parma(*wanted(files), *allowed(files), "--json", "--report-data", "00" * 64) == 1
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
    "option", [("--measurement", "00"), ("--report-data", "zz"), ("--nonce", "00"), ("--at", "tomorrow")]
)
def test_malformed_options_are_usage_errors(files: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parma(*wanted(files), *option)
    assert caught.value.code == 2
