# SPDX-License-Identifier: Apache-2.0
"""Policies of every version decide today as they did when they were recorded, and as the reference would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parma_policy import conversation
from parma_policy.loaded import DataPolicy
from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_policy.simulate import simulate
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION
from tests.policy import compat_cases
from tests.policy.compat_cases import APIS, FOLDER, FRAMEWORKS

FILES = sorted(FOLDER.glob("*.json"))


def read(path: Path) -> conversation.Conversation:
    return conversation.parse(path.read_bytes())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recorded_answer_is_given_again(path: Path) -> None:
    talk = read(path)
    assert talk.policy is not None
    for outcome in simulate(DataPolicy(load(talk.policy)), talk):
        assert not outcome.differences, f"{outcome.step}: {outcome.differences}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parity_mode_never_denies_what_a_guest_allows(path: Path) -> None:
    talk = read(path)
    assert talk.policy is not None
    strict = simulate(DataPolicy(load(talk.policy)), talk)
    parity = simulate(DataPolicy(load(talk.policy, parity=True)), talk)
    for mine, reference in zip(strict, parity, strict=True):
        assert reference.allowed or not mine.allowed


def test_every_case_is_recorded_and_every_recording_is_a_case() -> None:
    assert {path.stem for path in FILES} == {case.name for case in compat_cases.cases()}


@pytest.mark.parametrize("case", compat_cases.cases(), ids=lambda case: case.name)
def test_the_answers_are_those_that_the_versions_mean(case: compat_cases.Case) -> None:
    recorded = json.loads((FOLDER / f"{case.name}.json").read_text())
    assert recorded == compat_cases.document(case)  # which compares with what was said by hand


def test_every_version_and_point_is_covered() -> None:
    assert str(FRAMEWORK_VERSION) in FRAMEWORKS
    assert str(API_VERSION) in APIS
    asked = {step.call for path in FILES for step in read(path).steps}
    assert set(POINTS) <= asked
