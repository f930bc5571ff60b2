# SPDX-License-Identifier: Apache-2.0
"""The recording of a permissive policy: what is in it, its bounds, and that no other policy has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parma_guest import recording
from parma_guest.decisions import FrameworkEngine
from parma_guest.enforcer import Enforcer
from parma_guest.recording import Asked, Recording
from parma_guest.tee import NoTee
from parma_policy import conversation
from parma_policy.points import closed_door
from parma_wire.errors import Denied, FailedPrecondition
from parma_wire.limits import POLICY_CHUNK

MOUNT: dict[str, object] = {"target": "/run/mounts/scsi/m0", "deviceHash": "1" * 64}
UNMOUNT: dict[str, object] = {"unmountTarget": "/run/mounts/scsi/m0"}


def enforcer(text: str) -> Enforcer:
    gate = Enforcer(NoTee(), FrameworkEngine)
    gate.put_policy(0, text.encode())
    gate.set_policy(len(text.encode()))
    return gate


@pytest.fixture
def permissive() -> Enforcer:
    return enforcer(closed_door() + "permissive := true\n")


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def recorded(gate: Enforcer) -> list[dict[str, Any]]:
    data, size, dropped = gate.recording(0)
    assert (len(data), dropped) == (size, 0)
    return lines(data)


def test_requests_are_recorded_with_what_the_policy_would_have_said(permissive: Enforcer) -> None:
    with permissive.change("MountDevice") as asker:
        verdict = asker.ask("mount_device", MOUNT)
    assert verdict.allowed
    header, mounted = recorded(permissive)
    assert header["format"] == conversation.FORMAT == recording.FORMAT
    assert (mounted["call"], mounted["input"], mounted["expect"]) == ("mount_device", MOUNT, {"allowed": True})
    assert mounted["note"].startswith("mount_device would be denied: layer with root hash")


def test_what_was_taken_back_is_recorded_as_taken_back(permissive: Enforcer) -> None:
    def fail() -> None:
        with permissive.change("MountDevice") as asker:
            asker.ask("mount_device", MOUNT)
            raise FailedPrecondition("no such disk")

    with pytest.raises(FailedPrecondition):
        fail()
    with permissive.change("MountDevice") as asker:
        asker.ask("mount_device", MOUNT)
    calls = [step.get("call") for step in recorded(permissive)[1:]]
    assert calls == ["transaction_begin", "mount_device", "transaction_rollback", "mount_device"]


def test_what_stays_denied_is_recorded_as_denied(permissive: Enforcer) -> None:
    with pytest.raises(Denied), permissive.change("UnmountDevice") as asker:
        asker.ask("unmount_device", UNMOUNT)
    (step,) = [step for step in recorded(permissive) if step.get("call") == "unmount_device"]
    assert step == {"call": "unmount_device", "input": UNMOUNT, "expect": {"allowed": False}}


def test_questions_of_reads_are_recorded_once(permissive: Enforcer) -> None:
    for _ in range(5):
        with permissive.read("Stats") as asker:
            asker.ask("get_properties", {})
    assert [step.get("call") for step in recorded(permissive)].count("get_properties") == 1


def test_a_recording_is_a_conversation(permissive: Enforcer) -> None:
    with permissive.change("MountDevice") as asker:
        asker.ask("mount_device", MOUNT)
    talk = conversation.parse(permissive.recording(0)[0])
    assert [step.call for step in talk.steps] == ["mount_device"]
    assert len(talk.policy_sha256) == 64


@pytest.mark.parametrize("flag", [False, True])
def test_no_other_policy_has_a_recording(flag: bool) -> None:
    gate = enforcer(f"{closed_door()}allow_runtime_logging := {json.dumps(flag)}\n")
    with pytest.raises(FailedPrecondition if flag else Denied):
        gate.recording(0)


def test_before_a_policy_there_is_no_recording() -> None:
    with pytest.raises(FailedPrecondition):
        Enforcer(NoTee(), FrameworkEngine).recording(0)


def test_a_recording_is_bounded_and_says_what_is_missing() -> None:
    record = Recording(bytes(32), maximum=400)
    asked = Asked("mount_device", MOUNT, allowed=True, objection="")
    for _ in range(10):
        record.add([asked])
    data, size, dropped = record.read(0)
    assert size <= 400
    assert dropped == 10 - (len(lines(data)) - 1)
    record.add([Asked("get_properties", {}, allowed=True, objection="")])
    assert record.read(0) == (data, size, dropped + 1)


def test_it_is_read_in_pieces() -> None:
    record = Recording(bytes(32))
    for number in range(200):
        record.add(
            [Asked("mount_device", {"target": f"/{number}", "deviceHash": "1" * 64}, allowed=True, objection="")]
        )
    data = b""
    while True:
        piece, size, _ = record.read(len(data))
        assert len(piece) <= POLICY_CHUNK
        data += piece
        if len(data) == size:
            break
    assert len(lines(data)) == 201


def test_nothing_is_kept_of_a_request_without_questions(tmp_path: Path) -> None:
    record = Recording(bytes(32))
    record.add([], kept=False)
    assert len(lines(record.read(0)[0])) == 1
