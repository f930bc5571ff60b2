# SPDX-License-Identifier: Apache-2.0
"""docs/attestation.md is true: its table is that of the code, its example runs, its options exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devtool import docs
from parma_snp import codes
from parma_snp.errors import SnpError
from parma_snp.explain import REASONS
from parma_snp.verify_cli import add_verify

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/attestation.md").read_text()
REAL = ROOT.parent / "shared" / "vectors" / "snp" / "positive" / "turin-v5-aci"
SOURCES = (ROOT / "snp/parma_snp", ROOT / "shim/parma_shim/helpers")
CODE = re.compile(r"[a-z]+\.[a-z0-9_]+")


def codes_in_the_source() -> set[str]:
    """Every string that looks like a code of a documented family."""
    literals = {
        node.value
        for folder in SOURCES
        for path in folder.rglob("*.py")
        if path.name != "codes.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }
    return {code for code in literals if code.split(".")[0] in codes.FAMILIES}


# Made from parts: `appraise.{name}` for the identifiers, `uvm.{code}` for what the envelope's reader finds.
COMPOSED = {f"appraise.{name}" for name in ("image_id", "family_id", "report_id", "chip_id")} | {
    f"uvm.{code}"
    for code in ("format", "tag", "crit", "alg", "x5t", "chain", "validity", "signature", "issuer", "receipt")
}


def test_every_code_has_a_meaning_and_every_meaning_a_code() -> None:
    assert codes_in_the_source() | COMPOSED == set(codes.CODES)


@pytest.mark.parametrize("code", codes.CODES)
def test_every_failure_says_what_was_expected_what_was_found_and_what_to_do(code: str) -> None:
    assert codes.CODES[code].says
    assert all(SnpError(code, "what was found").to_json().values())


def test_an_error_keeps_what_it_knows_better() -> None:
    error = SnpError("bind.tcb", "message", expected="snp=24", found="snp=23", hint="update")
    assert (error.expected, error.found, error.hint) == ("snp=24", "snp=23", "update")


def test_the_table_in_the_documentation_is_current() -> None:
    assert docs.with_tables(TEXT) == TEXT, "run ./dev docs"
    assert all(f"| `{code}` |" in TEXT for code in codes.CODES)


def test_every_option_that_the_documentation_names_exists() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_verify(parser.add_subparsers())
    (verify,) = (action.choices["verify"] for action in parser._actions if isinstance(action.choices, dict))
    known = {option for action in verify._actions for option in action.option_strings}
    elsewhere = {"--out", "--key", "--chain", "--svn", "--fetch", "--service"}  # of the other commands on that page
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) - known - elsewhere == set()


def test_each_check_is_explained_once() -> None:
    assert all(reason.why.endswith(".") and reason.source for reason in REASONS.values())


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    return str(code)


@pytest.mark.skipif(not REAL.is_dir(), reason="no shared vectors beside the checkout")
def test_the_example_runs_and_refuses_what_was_not_made_for_it(tmp_path: Path) -> None:
    """A real report for another nonce: the example names just what is wrong with it."""
    from parma_snp.certificates import CertificateChain
    from parma_snp.evidence import Evidence
    from parma_snp.report import parse

    report, *chain = ((REAL / name).read_bytes() for name in ("report.bin", "vek.der", "ask.der", "ark.der"))
    parsed = parse(report)
    evidence = Evidence("snp", b"package policy\n", report, CertificateChain(*chain).to_pem(), parsed.report_data)
    (tmp_path / "evidence.json").write_text(evidence.dumps())
    (tmp_path / "app.rego").write_bytes(evidence.policy)
    (tmp_path / "measurement").write_text(parsed.measurement.hex())
    (tmp_path / "nonce").write_text("11" * 64)
    # The moment is the certificates', not today's.
    code = example().replace("datetime.now(UTC)", "datetime(2026, 3, 1, tzinfo=UTC)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "refused"
    assert [line for line in lines[1:] if not line.startswith(" ")] == [
        "appraise.report_data",
        "appraise.host_data",
        "appraise.min_tcb",
        "evidence.policy",
    ]
