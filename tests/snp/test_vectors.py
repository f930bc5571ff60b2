# SPDX-License-Identifier: Apache-2.0
"""The shared attestation cases, where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from devtool import snp_cases, vectors

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared vectors beside the checkout")
CASES = snp_cases.case_folders(VECTORS) if VECTORS.is_dir() else []


@pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_case_is_judged_as_expected(folder: Path) -> None:
    assert snp_cases.complaint(folder) is None


@pytest.mark.parametrize("place", snp_cases.FILES)
def test_files_of_cases_are_answered_as_others_do(place: str) -> None:
    complaints = dict(snp_cases.FILES[place](VECTORS / place))
    assert len(complaints) > 30
    assert {name: wrong for name, wrong in complaints.items() if wrong} == {}


def case_in(tmp_path: Path, name: str, **changes: object) -> Path:
    """A copy of one case with other demands, in a folder of cases of its own."""
    folder = tmp_path / "cases" / name
    shutil.copytree(VECTORS / name, folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | changes))
    return tmp_path / "cases"


def test_the_task_counts_and_names_failing_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case_in(tmp_path, "positive/turin-v5-aci")
    root = case_in(tmp_path, "positive/genoa-v3-azvm", verify_time="2019-01-01T00:00:00Z")
    assert vectors.main([str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "positive/genoa-v3-azvm: rejected: cert.validity",
        "1 passed, 1 failed",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"expect": "reject", "reasons": ["sig.invalid"]},
        {"policy": {"nonsense": True}},
        {"category": "nonsense"},
        {"fields": {"guest_svn": 77}},
    ],
    ids=str,
)
def test_a_case_that_is_not_answered_as_wanted_fails(tmp_path: Path, changes: dict[str, object]) -> None:
    root = case_in(tmp_path, "positive/turin-v5-aci", **changes)
    assert vectors.replay(root) == (0, 1)
