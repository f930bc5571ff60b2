# SPDX-License-Identifier: Apache-2.0
"""Conversations as text, sessions as values, and their simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_policy import conversation
from parma_policy.conversation import Step
from parma_policy.loaded import DataPolicy
from parma_policy.session import Session
from parma_policy.simulate import simulate
from parma_wire.errors import FailedPrecondition, Malformed
from tests.policy.builders import ID, LAYERS, VECTORS, creation, disk, policy, rootfs, text
from tests.policy.test_cli import parma

MOUNTS: list[dict[str, Any]] = [
    {"call": "mount_device", "input": {"target": disk(number), "deviceHash": layer}}
    for number, layer in enumerate(LAYERS)
]
OVERLAY: dict[str, Any] = {
    "call": "mount_overlay",
    "input": {"containerID": ID, "layerPaths": [disk(2), disk(1), disk(0)], "target": rootfs()},
}


def lines(*steps: dict[str, Any]) -> bytes:
    return "".join(json.dumps(step) + "\n" for step in steps).encode()


def differences(*steps: dict[str, Any]) -> list[str]:
    outcomes = simulate(DataPolicy(policy()), conversation.parse(lines(*steps)))
    return [difference for outcome in outcomes for difference in outcome.differences]


def test_a_good_conversation_is_allowed_with_its_results() -> None:
    expect = {"allowed": True, "allow_stdio_access": True, "env": ["PATH=/usr/bin:/bin"]}
    steps = [*MOUNTS, OVERLAY, {"call": "create_container", "input": creation(), "expect": expect}]
    outcomes = list(simulate(DataPolicy(policy()), conversation.parse(lines(*steps))))
    assert all(outcome.allowed and not outcome.differences for outcome in outcomes)
    assert outcomes[-1].as_json()["env"] == ["PATH=/usr/bin:/bin"]


@pytest.mark.parametrize(
    ("change", "expect", "difference"),
    [
        ({}, {"allowed": False}, "allowed, but expected to be denied"),
        ({"argList": ["x"]}, {"allowed": True}, "denied, but expected to be allowed"),
        ({"argList": ["x"]}, {"allowed": False, "code": "user"}, "the first reason is command"),
        ({"argList": ["x"]}, {"allowed": False, "reasons": ["invalid user"]}, "the reasons are"),
        ({"argList": ["x"]}, {"allowed": False, "error_kind": "policy_error"}, "refused as denied"),
        ({}, {"allowed": True, "env": []}, "env is"),
        ({}, {"allowed": True, "allow_stdio_access": False}, "allow_stdio_access is True"),
        ({"umask": 5}, {"allowed": True}, "malformed, but expected to be allowed"),
        ({"umask": 5}, {"allowed": False, "error_kind": "denied"}, "malformed, but expected to be refused as denied"),
    ],
)
def test_an_answer_other_than_expected_is_told(change: Any, expect: Any, difference: str) -> None:
    step = {"call": "create_container", "input": creation(**change), "expect": expect}
    (told,) = differences(*MOUNTS, OVERLAY, step)
    assert told.startswith(difference)


def test_expected_denials_are_no_differences() -> None:
    step = {"call": "create_container", "input": creation(argList=["x"])}
    good = {"allowed": False, "code": "command", "error_kind": "denied", "reasons": ["invalid command"]}
    assert differences(*MOUNTS, OVERLAY, {**step, "expect": good}) == []
    bad = {"call": "get_properties", "input": {"x": 1}, "expect": {"allowed": False, "error_kind": "error"}}
    assert differences(bad) == []


def test_transactions_go_back_to_exactly_what_was() -> None:
    begin, back = {"call": "transaction_begin", "input": {}}, {"call": "transaction_rollback", "input": {}}
    again = {**MOUNTS[0], "expect": {"allowed": True}}
    assert differences(begin, MOUNTS[0], back, again) == []
    commit = {"call": "transaction_commit", "input": {}}
    assert differences(begin, MOUNTS[0], commit, {**MOUNTS[0], "expect": {"allowed": False}}) == []


def test_a_session_is_a_value() -> None:
    before = Session.of(policy())
    _, after = before.ask("mount_device", MOUNTS[0]["input"])
    assert before.state != after.state
    opened = after.begin()
    _, further = opened.ask("mount_device", MOUNTS[1]["input"])
    assert further.roll_back().state is after.state
    assert further.commit().state is further.state
    with pytest.raises(FailedPrecondition, match="open already"):
        opened.begin()
    for wrong in (after.commit, after.roll_back):
        with pytest.raises(FailedPrecondition, match="no transaction"):
            wrong()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff", "not UTF-8"),
        (b"x\n", "line 1 is no JSON object"),
        (b"[1]\n", "line 1 is no JSON object"),
        (lines(MOUNTS[0], {"call": "x"}), "step 2: call or input"),
        (lines({"call": "x", "input": {}, "more": 1}), "step 1 is none"),
        (lines({"call": "x", "input": {}, "expect": []}), "expect is no object"),
        (lines({"call": "x", "input": {}, "expect": {"allowed": "yes"}}), "allowed of expect has the wrong type"),
        (lines(MOUNTS[0], {"format": conversation.FORMAT}), "line 2: unexpected header"),
        (lines({"format": "x"}), "unexpected header"),
        (lines({"format": conversation.FORMAT, "policy_sha256": 5}), "policy_sha256"),
        (lines({"dropped": 1}, MOUNTS[0]), "behind the last line"),
        (lines({"dropped": True}), "dropped is no number"),
        (b'{"steps": 5}', "wrong type"),
        (b'{"steps": [], "policy_rego": 5}', "wrong type"),
        (b'{"steps": [], "os": "windows"}', "another operating system"),
        (b'{"steps": [], "default_mounts": 5}', "no list"),
        (b'{"steps": [], "default_mounts": [5]}', "a default mount is none"),
        (b"[" * 100_000, "line 1"),
    ],
)
def test_what_is_no_conversation_is_malformed(data: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        conversation.parse(data)


def test_a_conversation_is_read_back_as_it_was_written() -> None:
    steps = (Step(2, "get_properties", {}, {"allowed": True}), Step(3, "dump_stacks", {}))
    read = conversation.parse(conversation.dump(steps, policy_sha256="ab").encode())
    assert read.steps == steps
    assert read.policy_sha256 == "ab"
    commented = conversation.parse(b"# a note\n\n" + lines(MOUNTS[0]) + b'{"dropped": 3}\n')
    assert (commented.steps[0].line, commented.dropped) == (3, 3)


def test_the_command_fails_when_an_answer_is_not_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rego, talk = tmp_path / "p.rego", tmp_path / "talk.jsonl"
    rego.write_text(text())
    talk.write_bytes(lines(*MOUNTS, OVERLAY, {"call": "create_container", "input": creation(argList=["x"])}))
    assert parma("policy", "simulate", rego, talk) == 0
    out = capsys.readouterr().out
    assert "denied     create_container" in out
    assert "[command at containers[0].command[0]]" in out
    assert out.endswith("4 allowed, 1 not, 0 not as expected\n")
    talk.write_bytes(lines({**MOUNTS[0], "expect": {"allowed": False}}))
    assert parma("policy", "simulate", "--json", rego, talk) == 1
    assert json.loads(capsys.readouterr().out)["differences"]
    with pytest.raises(Malformed, match="no policy of its own"):
        parma("policy", "simulate", talk)


def test_the_command_says_what_a_permissive_policy_would_have_denied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rego, talk = tmp_path / "p.rego", tmp_path / "talk.jsonl"
    rego.write_text(text(permissive=True))
    talk.write_bytes(lines({"call": "get_properties", "input": {}}, MOUNTS[0]))
    assert parma("policy", "simulate", "--denied", rego, talk) == 0
    out = capsys.readouterr().out
    assert "permitted  get_properties" in out
    assert "mount_device" not in out


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the recorded conversations are not beside the checkout")
@pytest.mark.parametrize("group", ["create__", "shared-layers__", "lifecycle__", "default-mounts__"])
def test_recordings_of_the_reference_come_out_as_recorded(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted(VECTORS.glob(f"{group}*.json"))
    assert paths
    for path in paths:
        assert parma("policy", "simulate", "--parity", path) == 0, path
    assert "0 not as expected" in capsys.readouterr().out
