# SPDX-License-Identifier: Apache-2.0
"""Replay of what the reference enforcer answered."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import closing

import pytest

from parma_policy.replay import Score, replay, replay_folder
from tests.policy.builders import VECTORS
from tests.policy.rego_engine import needs_engine, new_engine

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no shared/vectors/policy beside the checkout")

# Policies that are refused when they are loaded, by the start of the recording's name, and why.
REFUSED = {
    "custom/": "rules, functions and constant answers of its own",
    "custom-create/": "constant answers for create_container and its kin",
    "decision-text/policy-error": "a constant answer for mount_device",
    "document/crlf": "a constant answer for get_properties",
    "document/default-rule": "a default rule",
    "document/import-future": "a rule with a body",
    "document/import-rego-v1": "a rule with a body",
    "document/wrong-package": "not package policy",
    "document/": "not a policy",
    "open_door/": "constant answers for every point",
    "hcsshim-test/Test_Rego_EnforceRWDeviceMountPolicy_Compat_0_10_0": "constant answers, or input.envList in them",
    "hcsshim-test/Test_Rego_EnforceRWDeviceMountPolicy_OpenDoor": "constant answers for every point",
    "hcsshim-test/Test_Rego_": "rules, or answers, of its own",
}

# Recordings that the strict framework answers otherwise, and the entries of strictness.STRICTER that explain it.
STRICTER = {
    "create-dropping/env-conflicting-duplicate": "env.ambiguous",
    "create/env-conflicting-duplicate": "env.ambiguous",
    "create/mount-source-dotdot": "mount.unclean",
    "create/mount-source-literal": "mount.unclean",
    "env-rule/": "env.ambiguous",
    "exec/env-conflicting-duplicate": "env.ambiguous",
    "external/": "env.ambiguous",
    "fragment-parameters/wrong-type": "load.missing-members",
    "framework_version/": "mount-device.unusable-version",
    "hcsshim-test/Test_FrameworkVersion_In_Future": "mount-device.unusable-version",
    "hcsshim-test/Test_Rego_PlatformRules_InPolicy2": "load.layers",
    "missing-rule/shutdown_container": "unmount.in-use",
    "missing-rule/unmount_overlay": "unmount.in-use",
}


@pytest.fixture(scope="module")
def parity() -> Score:
    return replay_folder(VECTORS)


@pytest.fixture(scope="module")
def strict() -> Score:
    return replay_folder(VECTORS, parity=False)


def test_nothing_is_allowed_that_was_denied(parity: Score, strict: Score) -> None:
    assert parity.fail_open() == []
    assert strict.fail_open() == []


def test_every_answer_is_the_recorded_one(parity: Score) -> None:
    assert {name: str(found[0]) for name, found in parity.failed.items()} == {}
    assert len(parity.passed) >= 597


def test_only_policies_with_rules_of_their_own_are_refused(parity: Score) -> None:
    unexplained = [name for name in parity.refused if not name.startswith(tuple(REFUSED))]
    assert unexplained == []
    assert Counter(name.partition("/")[0] for name in parity.refused) == {
        "custom": 22,
        "custom-create": 10,
        "hcsshim-test": 13,
        "document": 5,
        "decision-text": 1,
        "open_door": 1,
    }


def test_a_refusal_says_where_and_what_to_do(parity: Score) -> None:
    for reason in parity.refused.values():
        assert "line " in reason or "empty" in reason


@needs_engine
def test_with_an_engine_every_policy_is_answered_as_recorded() -> None:
    with closing(new_engine("-reference")) as engine:
        score = replay_folder(VECTORS, engine)
    assert {name: str(found[0]) for name, found in score.failed.items()} == {}
    assert score.refused == {}
    assert len(score.passed) >= 649


@needs_engine
def test_the_engine_of_a_guest_allows_nothing_that_was_denied() -> None:
    with closing(new_engine()) as engine:
        score = replay_folder(VECTORS, engine, parity=False)
    assert score.fail_open() == []


_FORWARD = re.compile(r"(?m)^(\s*)(\w+) *:?= *data\.framework\.(?!reason|errors)(\w+) *$")


@needs_engine
def test_a_rule_that_passes_on_the_frameworks_answer_is_the_frameworks() -> None:
    # Every recording again, with each point decided by a rule: answer, history and reasons go through the engine.
    rewritten, different = 0, {}
    with closing(new_engine("-reference")) as engine:
        for path in sorted(VECTORS.glob("*.json")):
            recording = json.loads(path.read_text())
            if recording.get("os") == "linux" and _FORWARD.search(recording["policy_rego"]):
                rego = _FORWARD.sub(r"\1\2 := object.union(data.framework.\3, {})", recording["policy_rego"])
                rewritten += 1
                found = replay({**recording, "policy_rego": rego}, engine)
                if found:
                    different[recording["name"]] = str(found[0])
    assert different == {}
    assert rewritten >= 584


def test_only_windows_is_skipped(parity: Score) -> None:
    assert all(name.startswith("windows/") for name in parity.skipped)


def test_what_the_strict_framework_answers_otherwise_is_listed(strict: Score) -> None:
    from parma_policy.strictness import STRICTER as LISTED

    unlisted = {name: str(found[0]) for name, found in strict.failed.items() if not name.startswith(tuple(STRICTER))}
    assert unlisted == {}
    assert set(STRICTER.values()) <= set(LISTED)


def test_the_strict_reader_refuses_more_only_for_a_listed_reason(parity: Score, strict: Score) -> None:
    more = {name: text for name, text in strict.refused.items() if name not in parity.refused}
    reasons = ("is no layer", "no layers", "RE2 refuses", "unknown strategy", "unknown definition")
    assert {name: text for name, text in more.items() if not any(reason in text for reason in reasons)} == {}
