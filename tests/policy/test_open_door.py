# SPDX-License-Identifier: Apache-2.0
"""The open door: what it lets through, what stays enforced, and that no policy text leads to it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from parma_policy.framework import Decision, Kind, State
from parma_policy.framework.open_door import POLICY_BYTES, OpenDoor
from parma_policy.points import POINTS
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, creation, disk, execution, rootfs

HASH = "1" * 64
OTHER_ID = "9" * 64


class Talk:
    """A conversation through the open door."""

    def __init__(self) -> None:
        self._door = OpenDoor()
        self.state = State.initial()

    def ask(self, point: str, request: Mapping[str, object]) -> Decision:
        decision, self.state = self._door.decide(self.state, point, request)
        return decision

    def run(self) -> None:
        assert self.ask("mount_device", {"target": disk(0), "deviceHash": HASH}).allowed
        overlay = {"containerID": ID, "layerPaths": [disk(0)], "target": rootfs()}
        assert self.ask("mount_overlay", overlay).allowed
        assert self.ask("create_container", creation()).allowed


def test_any_image_and_command_runs_with_all_that_was_asked_for_and_no_reason() -> None:
    talk = Talk()
    talk.run()
    decision = talk.ask("exec_in_container", execution(argList=["/bin/anything"], user={"id": "7", "name": ""}))
    assert decision == Decision(allowed=True, point="exec_in_container", allow_stdio_access=True)
    assert decision.kind is Kind.ALLOWED
    assert not decision.overridden
    signal = {"containerID": ID, "signal": 64, "isInitProcess": False, "argList": ["/bin/anything"]}
    assert talk.ask("signal_container_process", signal).allowed
    assert talk.ask("get_properties", {}).allowed
    assert talk.ask("forward_port", {"port": 8080}).allowed
    assert talk.ask("shutdown_container", {"containerID": ID}).allowed
    assert talk.ask("unmount_overlay", {"unmountTarget": rootfs()}).allowed


def test_nothing_of_attestation_is_reached() -> None:
    talk = Talk()
    talk.run()
    _, again = OpenDoor().decide(talk.state, "get_properties", {})
    assert again == talk.state
    assert not talk.ask("get_properties", {}).attestation
    assert not talk.ask("get_properties", {}).identity


def test_what_contradicts_the_state_is_denied_with_the_frameworks_reason() -> None:
    talk = Talk()
    overlay = {"containerID": ID, "layerPaths": [disk(0)], "target": rootfs()}
    for point, request in (
        ("mount_overlay", overlay),  # of nothing that is mounted
        ("create_container", creation()),  # on no overlay
        ("exec_in_container", execution()),
        ("unmount_device", {"unmountTarget": disk(0)}),
    ):
        decision = talk.ask(point, request)
        assert not decision.allowed
        assert decision.message()
    talk.run()
    assert not talk.ask("create_container", creation()).allowed  # an id is used once
    assert not talk.ask("mount_device", {"target": disk(0), "deviceHash": "2" * 64}).allowed
    assert not talk.ask("unmount_device", {"unmountTarget": disk(0)}).allowed  # the overlay stands on it
    assert not talk.ask("exec_in_container", execution(containerID=OTHER_ID)).allowed


@pytest.mark.parametrize(
    ("point", "request_"),
    [
        ("rw_mount_device", {"target": "/x", "encrypted": False, "ensureFilesystem": True, "filesystem": "ext4"}),
        ("scratch_mount", {"target": "/x", "encrypted": False}),
        ("mount_cims", {}),
    ],
)
def test_plain_scratch_and_what_other_guests_have_stays_denied(point: str, request_: dict[str, object]) -> None:
    assert not Talk().ask(point, request_).allowed


def test_no_fragment_and_no_trust_list_is_loaded() -> None:
    fragment: dict[str, object] = {
        "issuer": "did:x",
        "feed": "f",
        "header_svn": None,
        "rego": "package x",
        "receipts": [],
    }
    assert not Talk().ask("load_fragment", fragment).allowed
    trust_list = {"issuer": "did:x", "subject": "s", "svn": 1, "ledgers": []}
    assert not Talk().ask("load_transparency_trust_list", trust_list).allowed


@pytest.mark.parametrize("point", [name for name, point in POINTS.items() if point.linux])
def test_a_malformed_request_is_malformed(point: str) -> None:
    with pytest.raises(Malformed):
        Talk().ask(point, {"no such field": 1})


def test_the_reader_takes_no_text_for_it() -> None:
    with pytest.raises(Malformed):
        load(POLICY_BYTES)
    assert POLICY_BYTES == b""
