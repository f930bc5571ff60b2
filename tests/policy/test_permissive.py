# SPDX-License-Identifier: Apache-2.0
"""Permissive policies: what they allow, what they enforce all the same, and how nobody gets one by accident."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.framework import Kind, State
from parma_policy.framework.permissive import FORCED
from parma_policy.framework.state import Started
from parma_policy.points import OWN_POINTS, POINTS, closed_door
from parma_policy.reader import load
from parma_wire.errors import Malformed
from tests.policy.builders import ID, SANDBOX, Talk, container, creation, disk, execution, policy, rootfs, text

LINE = "permissive := true"


def talk(*containers: Any) -> Talk:
    if containers:
        return Talk(policy(*containers, permissive=True))
    return Talk(load(f"{closed_door()}{LINE}\n".encode()))


def run(conversation: Talk) -> None:
    assert conversation.mount_overlay(conversation.mount_layers()).overridden
    assert conversation.ask("create_container", creation()).overridden


def test_what_the_policy_does_not_know_is_allowed_with_its_reason() -> None:
    learning = talk()
    decision = learning.ask("mount_device", target=disk(0), deviceHash="1" * 64)
    assert decision.allowed
    assert decision.overridden
    assert decision.kind is Kind.ALLOWED
    assert decision.reasons[0].code == "layer"
    assert decision.message().startswith("mount_device would be denied: ")
    assert learning.state.devices == {disk(0): "1" * 64}


def test_a_whole_run_that_the_policy_does_not_know_is_allowed() -> None:
    learning = talk()
    run(learning)
    created = learning.ask("exec_in_container", execution(argList=["/bin/anything"], user={"id": "7", "name": ""}))
    assert created.overridden
    assert created.allow_stdio_access
    assert created.env_list is None
    assert created.caps is None
    signal = {"containerID": ID, "signal": 9, "isInitProcess": True, "argList": []}
    assert learning.ask("signal_container_process", signal).overridden
    for point in ("get_properties", "dump_stacks", "runtime_logging", "host_network"):
        assert learning.ask(point, {}).overridden
    assert learning.ask("exec_external", {"argList": ["x"], "envList": [], "workingDir": "/"}).overridden
    assert learning.ask("log_provider", {"providers": ["p"]}).providers_to_keep == ("p",)
    assert learning.ask("shutdown_container", containerID=ID).allowed
    assert learning.ask("unmount_overlay", unmountTarget=rootfs()).allowed


def test_what_the_policy_allows_is_allowed_as_always() -> None:
    known = talk(container()).prepared()
    decision = known.ask("create_container", creation())
    assert decision.allowed
    assert not decision.overridden
    assert decision.env_list == ("PATH=/usr/bin:/bin",)
    assert known.state.matches[ID]


def test_a_container_that_is_created_otherwise_is_none_of_the_policys() -> None:
    known = talk(container()).prepared()
    assert known.ask("create_container", creation(argList=["/bin/other"], noNewPrivileges=False)).overridden
    assert known.state.matches[ID] == ()
    assert known.state.started[ID] == Started(privileged=False, allow_stdio_access=True)


def test_an_unknown_overlay_is_the_only_one_of_its_id() -> None:
    learning = talk()
    targets = learning.mount_layers()
    assert learning.mount_overlay(targets).overridden
    again = learning.ask("mount_overlay", containerID=ID, layerPaths=targets, target="/elsewhere")
    assert (again.allowed, again.reasons[0].code) == (False, "already_mounted")


def test_files_that_no_container_mounts_are_taken_and_remembered() -> None:
    learning = talk()
    source, digest = f"{SANDBOX}/volumes/secret", "d" * 64
    files = [{"path": "a", "sha256": digest}]
    request = {"containerID": ID, "sandboxDir": SANDBOX, "source": source, "files": files, "update": False}
    assert learning.ask("provide_files", request).overridden
    assert learning.state.provided == {source: {("a", digest)}}


def test_a_container_that_did_something_unknown_is_none_of_the_policys() -> None:
    known = talk(container()).created()
    assert known.ask("exec_in_container", execution(argList=["/bin/other"])).overridden
    assert known.state.matches[ID] == ()


@pytest.mark.parametrize(
    ("point", "request_", "code"),
    [
        ("mount_device", {"target": disk(0), "deviceHash": "f" * 64}, "already_mounted"),
        ("mount_device", {"target": "/etc", "deviceHash": "f" * 64}, "layer"),
        (
            "rw_mount_device",
            {"target": f"/run/gcs/c/{ID}", "encrypted": False, "ensureFilesystem": True, "filesystem": "ext4"},
            "unencrypted",
        ),
        ("scratch_mount", {"target": "/s", "encrypted": False}, "unencrypted"),
        ("unmount_device", {"unmountTarget": disk(0)}, "in_use"),
        ("unmount_overlay", {"unmountTarget": rootfs()}, "in_use"),
        ("mount_overlay", {"containerID": ID, "layerPaths": [disk(0)], "target": "/x"}, "already_mounted"),
        ("mount_overlay", {"containerID": "b2" * 32, "layerPaths": [disk(9)], "target": "/x"}, "not_mounted"),
        ("mount_overlay", {"containerID": "b2" * 32, "layerPaths": [disk(0), disk(9)], "target": "/x"}, "not_mounted"),
        ("mount_overlay", {"containerID": "b2" * 32, "layerPaths": [disk(0)], "target": rootfs()}, "already_mounted"),
        ("mount_overlay", {"containerID": "b2" * 32, "layerPaths": [], "target": "/x"}, "layers"),
        ("create_container", creation(), "already_started"),
        ("create_container", creation(containerID="b2" * 32), "no_overlay"),
        ("exec_in_container", execution(containerID="b2" * 32), "not_started"),
        ("shutdown_container", {"containerID": "b2" * 32}, "not_started"),
        ("mount_blockdev", {"target": "/x"}, "unsupported"),
        ("plan9_mount", {"target": "/x"}, "target"),
        (
            "load_fragment",
            {"issuer": "i", "feed": "f", "header_svn": None, "rego": "package p\n", "receipts": []},
            "issuer",
        ),
        ("load_transparency_trust_list", {"issuer": "i", "subject": "s", "svn": 1, "ledgers": []}, "trust_list"),
    ],
)
def test_what_keeps_the_run_meaningful_is_enforced_all_the_same(point: str, request_: Any, code: str) -> None:
    learning = talk()
    run(learning)
    before = learning.state
    decision = learning.ask(point, request_)
    assert not decision.allowed
    assert decision.reasons[0].code == code
    assert learning.state == before


def test_host_devices_are_never_given() -> None:
    learning = talk()
    assert learning.mount_overlay(learning.mount_layers()).allowed
    assert not learning.ask("create_container", creation(devices=["/dev/kvm"])).allowed


def test_an_overlay_that_was_unmounted_carries_no_container() -> None:
    learning = talk()
    assert learning.mount_overlay(learning.mount_layers()).allowed
    assert learning.ask("unmount_overlay", unmountTarget=rootfs()).allowed
    assert not learning.ask("create_container", creation()).allowed


def test_after_the_end_nothing_is_forced() -> None:
    learning = talk()
    run(learning)
    assert learning.ask("shutdown_container", containerID=ID).allowed
    assert not learning.ask("exec_in_container", execution()).allowed


def test_malformed_requests_and_points_without_a_rule_are_refused() -> None:
    with pytest.raises(Malformed):
        talk().ask("get_properties", {"x": 1})
    without = Talk(policy(without=["get_properties"], permissive=True))
    assert without.ask("get_properties", {}).kind is Kind.POLICY_ERROR
    assert not without.ask("no_such_point", {}).allowed


def test_only_points_that_exist_are_forced() -> None:
    assert set(FORCED) <= {*POINTS, *OWN_POINTS}


def test_no_policy_is_permissive_unless_it_says_so() -> None:
    for loaded in (policy(), policy(permissive=False), policy(permissive=True, parity=True)):
        assert not loaded.extensions.permissive
        decision = Talk(loaded).ask("mount_device", target=disk(0), deviceHash="f" * 64)
        assert not decision.allowed
        assert not decision.overridden
    assert policy(permissive=True).extensions.permissive


@pytest.mark.parametrize(
    "written",
    [
        "permissive = true",
        "permissive  := true",
        " permissive := true",
        "permissive := true # really",
        "permissive :=\ntrue",
        "permissive:=true",
    ],
)
def test_a_permissive_policy_says_so_in_the_one_way_that_everybody_finds(written: str) -> None:
    with pytest.raises(Malformed, match="line 'permissive := true'"):
        load(f"{text()}{written}\n".encode())
    assert load(f"{text()}{LINE}\n".encode()).extensions.permissive
    assert load(f"{text()}{LINE}".encode()).extensions.permissive
    assert load(f"{text()}{LINE}\r\n".encode()).extensions.permissive


def test_its_value_must_be_a_truth_value() -> None:
    with pytest.raises(Malformed, match="true or false"):
        policy(permissive="true")


def test_the_state_begins_empty() -> None:
    assert talk().state == State.initial()
