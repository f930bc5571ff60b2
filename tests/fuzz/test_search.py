# SPDX-License-Identifier: Apache-2.0
"""A short search of every target, from its seeds, with the fuzzer that ``./dev fuzz`` runs for as long as one likes.

``PARMA_FUZZ_SECONDS=60`` gives each its minute; a whole test run has less time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.fuzz import harness, run

SECONDS = int(os.environ.get("PARMA_FUZZ_SECONDS", "15"))
AT_ONCE = 2
_START = 30
"""Seconds, at most, until a target's process begins to search."""


@pytest.mark.timeout(len(harness.names()) * (SECONDS + _START))
def test_a_short_search_breaks_no_target(tmp_path: Path) -> None:
    outcomes = [*run.campaign(harness.names(), SECONDS / 60, AT_ONCE, tmp_path / "corpus", tmp_path / "crashes")]
    assert [outcome.name for outcome in outcomes] == harness.names()
    assert not [outcome.said for outcome in outcomes if outcome.broken]
    idle = [outcome.name for outcome in outcomes if outcome.executions <= len(harness.load(outcome.name).seeds)]
    assert not idle, "nothing but the seeds was tried"


def test_a_broken_target_is_noticed_with_what_broke_it(tmp_path: Path) -> None:
    program = "import sys; print('Done 12 runs in 3 second(s)', flush=True); sys.exit('Base64: Zm9v')"
    outcome = run.search("x", [sys.executable, "-c", program], tmp_path / "log")
    assert outcome.broken
    assert outcome.executions == 12
    assert "Base64: Zm9v" in outcome.said
    assert "BROKEN" in str(outcome)
