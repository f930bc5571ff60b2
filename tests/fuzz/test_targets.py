# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets on their seeds, on what once broke them, and on a few mutations: what a test run has time for.

``./dev fuzz`` looks further.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import harness

TARGETS = [harness.load(name) for name in harness.names()]

Edit = tuple[int, int, bytes]


def edited(seed: bytes, edits: list[Edit]) -> bytes:
    """The seed with some pieces, given by position and length, replaced by others."""
    for position, length, new in edits:
        place = position % (len(seed) + 1)
        seed = seed[:place] + new + seed[place + length :]
    return seed


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seeds_break_nothing(target: harness.FuzzTarget) -> None:
    assert target.seeds
    for seed in target.seeds:
        target.run(seed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_once_broke_a_target_breaks_it_no_more(target: harness.FuzzTarget) -> None:
    for path in target.crashes():
        target.run(path.read_bytes())


EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 16), st.binary(max_size=16)), max_size=6)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_seeds_break_nothing(target: harness.FuzzTarget, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(target.seeds), "seed")
    target.run(edited(seed, data.draw(EDITS, "edits")))
