# SPDX-License-Identifier: Apache-2.0
"""The shared attestation cases, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snp.replay import cases, complaint, measurement_complaints

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "snp"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared vectors beside the checkout")


@pytest.mark.parametrize(
    "folder", list(cases(VECTORS)) if VECTORS.is_dir() else [], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_case_is_judged_as_expected(folder: Path) -> None:
    assert complaint(folder) is None


def test_measurements_are_predicted_as_others_do() -> None:
    complaints = dict(measurement_complaints(VECTORS / "measurement" / "vectors.json"))
    assert len(complaints) > 50
    assert {name: wrong for name, wrong in complaints.items() if wrong} == {}
