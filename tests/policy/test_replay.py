# SPDX-License-Identifier: Apache-2.0
"""Replaying and measuring: differences are found, whatever they are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_policy import benchmark
from parma_policy.reader import load
from parma_policy.replay import RefusedPolicyError, main, replay, replay_folder
from parma_wire.errors import Malformed
from tests.policy.builders import (
    CAPS,
    ID,
    LAYERS,
    Json,
    Talk,
    capabilities,
    container,
    creation,
    disk,
    policy,
    rootfs,
    text,
)

DEVICE: Json = {"target": disk(0), "deviceHash": LAYERS[0]}


def step(call: str, given: Json, allowed: bool, **expect: Any) -> Json:
    return {"call": call, "input": given, "expect": {"allowed": allowed, **expect}}


def recording(*steps: Json, **changes: Any) -> Json:
    good = {"name": "g/n", "os": "linux", "policy_rego": text(container(layers=[LAYERS[0]])), "steps": list(steps)}
    return {**good, "default_mounts": [], "privileged_mounts": None, **changes}


BEGINNING = (
    step("mount_device", DEVICE, allowed=True),
    step("mount_overlay", {"containerID": ID, "layerPaths": [disk(0)], "target": rootfs()}, allowed=True),
)


def differences(*steps: Json) -> list[str]:
    return [f"{found.call} {found.what}" for found in replay(recording(*steps))]


def test_equal_answers_make_no_difference() -> None:
    caps = {name: sorted(names) for name, names in capabilities().items()}
    env = ["PATH=/usr/bin:/bin"]
    good = step("create_container", creation(), allowed=True, env=env, caps=caps, allow_stdio_access=True)
    assert differences(*BEGINNING, good) == []


@pytest.mark.parametrize(
    ("expect", "found"),
    [
        ({"env": []}, "create_container env"),
        ({"caps": {**{name: [] for name in capabilities()}, "bounding": CAPS}}, "create_container caps"),
        ({"allow_stdio_access": False}, "create_container allow_stdio_access"),
    ],
)
def test_other_results_are_found(expect: Json, found: str) -> None:
    assert differences(*BEGINNING, step("create_container", creation(), allowed=True, **expect)) == [found]


def test_another_decision_ends_the_comparison() -> None:
    wrong = step("mount_device", DEVICE, allowed=False, error_kind="denied")
    assert differences(wrong, wrong) == ["mount_device allowed"]
    assert replay(recording(wrong))[0].fail_open
    denied = step("mount_device", {**DEVICE, "deviceHash": "f" * 64}, allowed=True)
    assert not replay(recording(denied))[0].fail_open


def test_other_kinds_and_reasons_are_found() -> None:
    unknown = {**DEVICE, "deviceHash": "f" * 64}
    assert differences(step("mount_device", unknown, allowed=False, error_kind="policy_error")) == ["mount_device kind"]
    reasons = step("mount_device", unknown, allowed=False, error_kind="denied", reasons=["something else"])
    assert differences(reasons) == ["mount_device reasons"]


def test_malformed_requests_stand_for_errors_outside_of_the_policy() -> None:
    request = {**creation(), "capabilities": None}
    assert differences(step("create_container", request, allowed=False, error_kind="error")) == []
    assert differences(step("create_container", request, allowed=False, error_kind="denied")) == [
        "create_container kind"
    ]
    assert differences(step("create_container", request, allowed=True)) == ["create_container allowed"]


def test_transactions_put_the_state_back() -> None:
    begin, back, end = ({"call": f"transaction_{name}", "input": {}} for name in ("begin", "rollback", "commit"))
    mount = step("mount_device", DEVICE, allowed=True)
    assert differences(begin, mount, back, mount) == []
    assert differences(begin, mount, end, mount) == ["mount_device allowed"]


def test_default_mounts_can_be_extended() -> None:
    mount: Json = {"destination": "/p", "source": "sandbox://x/.+", "type": "bind", "options": []}
    asked = creation(mounts=[{**mount, "source": f"{creation()['sandboxDir']}x/y"}])
    extend = {"call": "extend_default_mounts", "input": {"mounts": [mount]}}
    create = step("create_container", asked, allowed=True)
    assert differences(*BEGINNING, create) == ["create_container allowed"]
    assert differences(*BEGINNING, extend, create) == []


def test_construction_that_must_fail() -> None:
    construct = {"call": "construct", "input": {}, "expect": {"allowed": False}}
    assert replay(recording(construct, policy_rego="not Rego")) == []
    assert replay(recording(construct))[0].fail_open
    with pytest.raises(RefusedPolicyError, match="line 1"):
        replay(recording(*BEGINNING, policy_rego="not Rego"))


def test_a_folder_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = step("mount_device", DEVICE, allowed=False, error_kind="denied")
    files = {
        "good": recording(*BEGINNING, name="good"),
        "bad": recording(wrong, name="bad"),
        "refused": recording(*BEGINNING, name="refused", policy_rego="x"),
        "windows": recording(name="windows", os="windows"),
        "constants": {"api_version": "0.12.0"},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    score = replay_folder(tmp_path)
    assert (score.passed, list(score.failed), list(score.refused)) == (("good",), ["bad"], ["refused"])
    assert (list(score.skipped), score.fail_open()) == (["windows"], ["bad"])
    assert main(tmp_path, without_engine="none here") == (1, 1)
    shown = capsys.readouterr().out
    assert "1 skipped: recorded in a guest of windows" in shown
    assert "1 skipped: rules of its own, and no engine: none here" in shown
    assert "bad: step 0 mount_device: allowed is True, recorded False" in shown
    (tmp_path / "broken.json").write_text("[]")
    with pytest.raises(Malformed, match=r"broken\.json"):
        replay_folder(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(Malformed, match=r"broken\.json"):
        replay_folder(tmp_path)


def test_what_is_measured_is_an_allowed_request() -> None:
    for alike in (False, True):
        times = benchmark.decision_times(3, rules=4, rounds=10, alike=alike)
        assert "create_container" in times
        assert all(0 < one.wall_median <= one.wall_p99 for one in times.values())
    assert set(benchmark.load_times((1,), rounds=1)) == {1}


def test_the_measured_policy_tells_its_containers_apart() -> None:
    loaded = load(benchmark.policy_text(3, 4))
    assert len(loaded.containers.containers) == 3


def test_capabilities_listed_twice_in_a_policy_are_never_matched_by_dropping() -> None:
    twice = container(capabilities=capabilities([CAPS[0], CAPS[0]]))
    loaded = policy(twice, parity=True, allow_capability_dropping=True)
    decision = Talk(loaded).prepared().ask("create_container", creation(capabilities=capabilities([CAPS[0]] * 2)))
    assert [reason.code for reason in decision.reasons] == ["capabilities"]
