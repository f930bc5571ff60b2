# SPDX-License-Identifier: Apache-2.0
"""The linters are tests: one command proves everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("cose", "shim", "guest", "policy", "snp", "ttrpc", "wire", "tools")


def tracked(suffix: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", f"*{suffix}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "format", "--check", "--quiet", "."],
        ["ruff", "check", "--quiet", "."],
        ["mypy", *SOURCES, "tests"],
    ],
    ids=["ruff format", "ruff check", "mypy"],
)
def test_linter_has_no_complaint(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_file_names_its_licence() -> None:
    generated = ("_pb2.py", "_pb2.pyi")
    sources = [path for path in tracked(".py") + tracked(".proto") if not path.name.endswith(generated)]
    assert sources
    nameless = [str(path) for path in sources if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:300]]
    assert nameless == []
