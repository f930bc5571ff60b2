# SPDX-License-Identifier: Apache-2.0
"""A minute's search of every target, from its seeds, with the fuzzer that ``./dev fuzz`` runs for as long as one likes.

As many targets at a time as there are processors, from the first test here to the last. ``PARMA_FUZZ_SECONDS`` gives
each more or less.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import harness, run
from tests.fuzz.searches import Searches, how_to_keep

SECONDS = int(os.environ.get("PARMA_FUZZ_SECONDS", "60"))
_PATIENCE = 300
"""More seconds, at most, until a search has begun, and ended after its time."""


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each target, a file for each input that breaks it."""
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def searches(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, crashes: Path
) -> Iterator[Searches]:
    """Of the targets that this run of pytest has chosen, in the order in which they are waited for."""
    mine = [
        item for item in request.session.items if isinstance(item, pytest.Function) and "searches" in item.fixturenames
    ]
    names = [str(item.callspec.params["name"]) for item in mine]
    jobs = len(os.sched_getaffinity(0))
    with run.searches(names, SECONDS / 60, jobs, tmp_path_factory.mktemp("corpus"), crashes) as begun:
        yield begun


@pytest.mark.timeout(SECONDS + _PATIENCE)
@pytest.mark.parametrize("name", harness.names())
def test_a_search_breaks_nothing(searches: Searches, crashes: Path, name: str) -> None:
    outcome = searches.outcome(name)
    found = sorted((crashes / name).glob("*"))
    assert not outcome.broken, f"{outcome}\n{outcome.said}\n{how_to_keep(name, found, harness.CRASHES)}"
    assert outcome.executions > len(harness.load(name).seeds), f"nothing but the seeds was tried\n{outcome.said}"
    print(outcome)
