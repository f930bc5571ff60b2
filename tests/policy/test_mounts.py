# SPDX-License-Identifier: Apache-2.0
"""Devices, overlays, scratch space and shares."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parma_policy.framework import Kind
from tests.policy.builders import ID, LAYERS, OTHER_ID, Json, Talk, code, container, creation, disk, policy, rootfs

SCRATCH = f"/run/gcs/c/{ID}"


@pytest.fixture
def talk() -> Talk:
    return Talk(policy())


def test_a_layer_of_the_policy_is_mounted_once_at_each_place(talk: Talk) -> None:
    assert talk.ask("mount_device", target=disk(0), deviceHash=LAYERS[0]).allowed
    assert talk.state.devices == {disk(0): LAYERS[0]}
    assert code(talk.ask("mount_device", target=disk(0), deviceHash=LAYERS[1])) == "already_mounted"
    assert talk.ask("mount_device", target=disk(1), deviceHash=LAYERS[0]).allowed


def test_another_layer_is_denied(talk: Talk) -> None:
    denied = talk.ask("mount_device", target=disk(0), deviceHash="f" * 64)
    text = f'mount_device denied: layer with root hash "{"f" * 64}" is not in the policy'
    change = "to allow it, the policy would have to be generated again for this image"
    assert denied.message() == f"{text}; {change} [layer]"
    assert denied.topics() == ("deviceHash not found",)
    assert "generated again" in denied.hint()
    assert talk.state.devices == {}


@pytest.mark.parametrize(
    "target", ["", "/", "/run/mounts/scsi/m", disk(1) + "/x", disk(1) + "\n", "/run/mounts/scsi/m٣"]
)
def test_a_layer_is_mounted_only_where_layers_belong(talk: Talk, target: str) -> None:
    assert code(talk.ask("mount_device", target=target, deviceHash=LAYERS[0])) == "target"


def test_a_device_is_unmounted_once(talk: Talk) -> None:
    talk.mount_layers()
    assert talk.ask("unmount_device", unmountTarget=disk(0)).allowed
    assert code(talk.ask("unmount_device", unmountTarget=disk(0))) == "not_mounted"
    assert talk.ask("mount_device", target=disk(0), deviceHash=LAYERS[0]).allowed


def test_a_device_in_an_overlay_stays(talk: Talk) -> None:
    talk.prepared()
    assert code(talk.ask("unmount_device", unmountTarget=disk(1))) == "in_use"
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed
    assert talk.ask("unmount_device", unmountTarget=disk(1)).allowed


def test_a_device_in_no_overlay_may_go(talk: Talk) -> None:
    talk.prepared()
    assert talk.ask("mount_device", target=disk(7), deviceHash=LAYERS[0]).allowed
    assert talk.ask("unmount_device", unmountTarget=disk(7)).allowed


def test_the_overlay_of_a_running_container_stays(talk: Talk) -> None:
    talk.created()
    assert code(talk.ask("unmount_overlay", unmountTarget=rootfs())) == "in_use"
    assert talk.ask("shutdown_container", containerID=ID).allowed
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed


def test_the_reference_leaves_uses_to_its_guest() -> None:
    talk = Talk(policy(parity=True)).created()
    assert talk.ask("unmount_device", unmountTarget=disk(1)).allowed
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed


def rw(**changes: object) -> dict[str, object]:
    return {"target": SCRATCH, "encrypted": True, "ensureFilesystem": True, "filesystem": "ext4", **changes}


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_an_encrypted_read_write_device_is_mounted(talk: Talk, filesystem: str) -> None:
    assert talk.ask("rw_mount_device", rw(filesystem=filesystem)).allowed
    assert talk.state.rw_devices == {SCRATCH}
    assert code(talk.ask("rw_mount_device", rw())) == "already_mounted"
    assert talk.ask("rw_unmount_device", unmountTarget=SCRATCH).allowed
    assert code(talk.ask("rw_unmount_device", unmountTarget=SCRATCH)) == "not_mounted"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"encrypted": False}, "unencrypted"),
        ({"ensureFilesystem": False}, "ensure_filesystem"),
        ({"filesystem": "btrfs"}, "filesystem"),
        ({"target": SCRATCH + "/x"}, "target"),
        ({"target": "/run/gcs/c/x"}, "target"),
    ],
)
def test_a_read_write_device_is_as_it_must_be(talk: Talk, change: dict[str, object], expected: str) -> None:
    assert code(talk.ask("rw_mount_device", rw(**change))) == expected
    assert talk.state.rw_devices == frozenset()


def test_the_policy_can_allow_unencrypted_scratch() -> None:
    talk = Talk(policy(allow_unencrypted_scratch=True))
    assert talk.ask("rw_mount_device", rw(encrypted=False)).allowed
    assert talk.ask("scratch_mount", target="/s", encrypted=False).allowed


def test_kinds_of_devices_are_not_mixed_up(talk: Talk) -> None:
    talk.mount_layers()
    assert talk.ask("rw_mount_device", rw()).allowed
    assert code(talk.ask("unmount_device", unmountTarget=SCRATCH)) == "read_write"
    assert code(talk.ask("rw_unmount_device", unmountTarget=disk(0))) == "read_only"
    assert code(talk.ask("mount_device", target=SCRATCH, deviceHash=LAYERS[0])) == "already_mounted"


def test_block_devices_are_never_mounted(talk: Talk) -> None:
    assert code(talk.ask("mount_blockdev", target="/dev/x")) == "unsupported"
    assert code(talk.ask("unmount_blockdev", unmountTarget="/dev/x")) == "unsupported"


# -- overlays ----------------------------------------------------------------------------------------------------


def test_an_overlay_of_the_right_layers_decides_what_the_id_can_be() -> None:
    talk = Talk(policy(container(), container(command=["b"]), container(command=["c"], layers=[LAYERS[0]])))
    assert talk.mount_overlay(talk.mount_layers()).allowed
    assert [found.command for found in talk.state.candidates(ID)] == [("/bin/app", "--serve"), ("b",)]
    assert talk.state.candidates(OTHER_ID) == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1), (2, 1, 0, 0), (1, 2, 0), ()])
def test_other_layers_or_another_order_are_denied(talk: Talk, order: tuple[int, ...]) -> None:
    talk.mount_layers()
    assert code(talk.mount_overlay([disk(number) for number in order])) == "layers"
    assert talk.state.matches == {}


def test_a_layer_that_is_not_mounted_is_named(talk: Talk) -> None:
    talk.mount_layers()
    assert disk(9) in talk.mount_overlay([disk(2), disk(9), disk(0)]).message()


def test_an_id_and_a_place_have_one_overlay(talk: Talk) -> None:
    targets = talk.mount_layers()
    assert talk.mount_overlay(targets).allowed
    assert code(talk.mount_overlay(targets)) == "already_mounted"
    request = {"containerID": OTHER_ID, "layerPaths": targets, "target": rootfs()}
    assert code(talk.ask("mount_overlay", request)) == "already_mounted"
    assert talk.mount_overlay(targets, OTHER_ID).allowed


def test_a_denial_under_an_unusable_framework_version_says_so() -> None:
    decision = Talk(policy(framework_version="9.0.0")).ask("dump_stacks")
    assert [reason.code for reason in decision.reasons] == ["flag", "framework_version"]


def test_what_the_lists_do_not_decide_is_not_changed_by_an_unusable_framework_version() -> None:
    talk = Talk(policy(framework_version="9.0.0", allow_dump_stacks=True, without=["host_network"]))
    assert talk.ask("dump_stacks").message() == ""
    missing = talk.ask("host_network")
    assert [reason.code for reason in missing.reasons] == ["no_rule"]
    overlay = talk.mount_overlay([])
    assert (overlay.kind, code(overlay)) == (Kind.DENIED, "framework_version")


def test_two_framework_versions_say_nothing_usable() -> None:
    talk = Talk(policy(framework_version="0.5.0", framework_svn="0.4.0"))
    request = {"containerID": ID, "layerPaths": [], "target": rootfs()}
    assert talk.ask("mount_overlay", request).kind is Kind.POLICY_ERROR
    process = {"argList": ["x"], "envList": [], "workingDir": "/"}
    assert talk.ask("exec_external", process).kind is Kind.POLICY_ERROR
    fragment: Json = {"issuer": "i", "feed": "f", "header_svn": None, "rego": "package p\n", "receipts": []}
    assert talk.ask("load_fragment", fragment).kind is Kind.POLICY_ERROR
    assert talk.ask("dump_stacks").kind is Kind.DENIED
    assert talk.ask("mount_device", target=disk(0), deviceHash=LAYERS[0]).kind is Kind.DENIED


def test_unmounting_an_overlay_does_not_free_the_id(talk: Talk) -> None:
    talk.prepared()
    assert talk.ask("unmount_overlay", unmountTarget=rootfs()).allowed
    assert code(talk.ask("unmount_overlay", unmountTarget=rootfs())) == "not_mounted"
    assert code(talk.mount_overlay([disk(2), disk(1), disk(0)])) == "already_mounted"


def test_no_layers_at_all_match_only_in_parity_mode() -> None:
    talk = Talk(policy(container(layers=[]), parity=True))
    assert talk.mount_overlay([]).allowed
    strict = Talk(replace(talk.policy, parity=False))  # which no text makes
    assert code(strict.mount_overlay([])) == "layers"


def test_platform_rules_make_variants_of_each_container() -> None:
    mount = {"destination": "/tokens", "source": "sandbox:///t/.+", "type": "bind", "options": ["ro"]}
    rules = [
        {"env_rules": [{"pattern": "A=1", "strategy": "string", "required": False}]},
        {"mounts": [mount]},
    ]
    talk = Talk(policy(platform_rules=rules)).prepared()
    assert len(talk.state.candidates(ID)) == 2
    both = creation(
        envList=["PATH=/usr/bin:/bin", "A=1"], mounts=[{**mount, "source": f"/run/gcs/c/{ID}/sandboxMounts/t/x"}]
    )
    assert not talk.ask("create_container", both).allowed
    assert talk.ask("create_container", {**both, "mounts": []}).allowed
    mounting = Talk(policy(platform_rules=rules)).prepared()
    assert mounting.ask("create_container", {**both, "envList": ["PATH=/usr/bin:/bin"]}).allowed


@pytest.mark.parametrize("version", ["0.6.0", "x", None])
def test_a_version_that_we_do_not_know_is_the_first_reason(version: object) -> None:
    talk = Talk(policy(framework_version=version))
    assert code(talk.ask("mount_device", target=disk(0), deviceHash=LAYERS[0])) == "framework_version"
    assert code(talk.mount_overlay([])) == "framework_version"
    assert code(talk.ask("create_container", creation())) == "framework_version"
    assert code(talk.ask("shutdown_container", containerID=ID)) == "framework_version"


# -- scratch and shares ------------------------------------------------------------------------------------------


def test_scratch_space_is_mounted_once_at_each_place(talk: Talk) -> None:
    assert talk.ask("scratch_mount", target="/s", encrypted=True).allowed
    assert code(talk.ask("scratch_mount", target="/s", encrypted=True)) == "already_mounted"
    plain = talk.ask("scratch_mount", target="/t", encrypted=False)
    flag = "allow_unencrypted_scratch"
    assert plain.message() == (
        f"scratch_mount denied: scratch space must be encrypted; to allow it, {flag} would have to be true "
        f"[unencrypted at {flag}]"
    )
    assert talk.ask("scratch_unmount", unmountTarget="/s").allowed
    assert code(talk.ask("scratch_unmount", unmountTarget="/s")) == "not_mounted"


def test_shares_belong_to_a_container_with_an_overlay(talk: Talk) -> None:
    share = f"/run/gcs/c/{ID}/mounts/m7"
    assert code(talk.ask("plan9_mount", target=share)) == "target"
    talk.prepared()
    assert talk.ask("plan9_mount", target=share).allowed
    assert code(talk.ask("plan9_mount", target=share)) == "already_mounted"
    assert talk.ask("plan9_unmount", unmountTarget=share).allowed
    assert code(talk.ask("plan9_unmount", unmountTarget=share)) == "not_mounted"


@pytest.mark.parametrize(
    "target", [f"/run/gcs/c/{ID}/mounts/m", f"/run/gcs/c/{ID}", f"/x/{ID}/mounts/m1", f"{ID}/mounts/m1"]
)
def test_shares_are_mounted_only_where_they_belong(talk: Talk, target: str) -> None:
    assert code(talk.prepared().ask("plan9_mount", target=target)) == "target"
