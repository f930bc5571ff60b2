# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  (what must raise is the last of several steps)
"""Steps of the enforcer's group that fail: all is as before, or nothing may change any more."""

from __future__ import annotations

from typing import Any

import pytest

from parma_guest.requests import MountOverlay, MountScratch
from parma_wire.errors import Denied, FailedPrecondition, Malformed, ParmaError, Unavailable
from tests.guest.fakes import CONTAINER, OTHER, Rig
from tests.guest.group_steps import LAYER, TOP, creation, mount, rootfs, running


@pytest.mark.parametrize(
    "point", ["mount_device", "rw_mount_device", "scratch_mount", "mount_overlay", "create_container"]
)
def test_a_denial_leaves_no_trace(rig: Rig, point: str) -> None:
    rig.engine.deny.add(point)
    with pytest.raises(Denied, match=f"{point} denied: because"):
        rootfs(rig)
        rig.group.create(creation())
    before = rig.state
    mounts = len(rig.kernel.mounts)
    rig.engine.deny.clear()
    assert point not in before
    assert mounts == {"mount_device": 0, "rw_mount_device": 2, "scratch_mount": 2, "mount_overlay": 3}.get(point, 4)
    assert rig.runtime.containers == {}


def test_a_disk_that_is_too_small_is_refused_before_anything_is_set_up(rig: Rig) -> None:
    with pytest.raises(Malformed, match="too small"):
        mount(rig, blocks=64 * 256)
    assert rig.mapper.devices == {}


def test_a_layer_that_cannot_be_mounted_is_taken_back_and_can_be_tried_again(rig: Rig) -> None:
    rig.kernel.broken.add(LAYER)
    with pytest.raises(Unavailable, match="does not verify"):
        mount(rig)
    assert rig.mapper.devices == {}
    assert list(rig.state) == []
    rig.kernel.broken.clear()
    mount(rig)
    assert rig.state == ("mount_device",)


@pytest.mark.parametrize("broken", ["integrity", "crypt"])
def test_scratch_that_cannot_be_made_is_taken_back(rig: Rig, broken: str) -> None:
    rig.mapper.broken.add(broken)
    with pytest.raises(Unavailable):
        rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))
    assert rig.mapper.devices == {}
    assert rig.state == ()
    rig.mapper.broken.clear()
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))


def test_a_layer_that_cannot_be_taken_back_poisons(rig: Rig) -> None:
    rig.kernel.broken.add(LAYER)
    rig.mapper.stuck.add("layer")
    with pytest.raises(Unavailable, match="taking it back failed"):
        mount(rig)
    with pytest.raises(FailedPrecondition, match="no more changes"):
        mount(rig, TOP, 1)


@pytest.mark.parametrize(
    ("stuck", "act"),
    [
        (str(LAYER), lambda rig: rig.group.storage.unmount_device(LAYER)),
        (f"/run/gcs/c/{CONTAINER}", lambda rig: rig.group.storage.unmount_scratch(CONTAINER)),
    ],
)
def test_a_failed_unmount_poisons(rig: Rig, stuck: str, act: Any) -> None:
    mount(rig)
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, None, 1 << 20))
    before = rig.state
    rig.kernel.stuck.add(stuck)
    with pytest.raises(Unavailable):
        act(rig)
    assert rig.state == before
    with pytest.raises(FailedPrecondition, match="no more changes"):
        mount(rig, TOP, 1)


def test_crun_refusing_changes_nothing_and_its_reason_is_told(rig: Rig) -> None:
    rootfs(rig)
    before = rig.state
    rig.runtime.fail.add("create")
    with pytest.raises(ParmaError, match="crun create failed: because"):
        rig.group.create(creation())
    assert rig.state == before
    rig.runtime.fail.clear()
    rig.group.create(creation())
    rig.runtime.fail.add("start")
    with pytest.raises(ParmaError, match="crun start failed"):
        rig.group.start(CONTAINER)
    rig.group.delete(CONTAINER)


def test_a_container_that_crun_refuses_leaves_no_device(rig: Rig) -> None:
    rootfs(rig)
    rig.runtime.fail.add("create")
    with pytest.raises(ParmaError):
        rig.group.create(creation())
    assert rig.attestation.calls[-1] == ("close",)


@pytest.mark.parametrize("step", ["prepare", "serve"])
def test_a_container_whose_attestation_cannot_be_served_is_not_kept(rig: Rig, step: str) -> None:
    rootfs(rig)
    rig.attestation.fail.add(step)
    with pytest.raises(Unavailable, match=step):
        rig.group.create(creation())
    assert rig.runtime.containers == {}
    assert rig.enforcer.poisoned == ""
    if step == "serve":
        assert rig.runtime.calls == ["create", "delete"]
        assert rig.attestation.calls[-1] == ("close",)
    rig.attestation.fail.clear()
    rig.group.create(creation())


def test_a_container_that_joined_a_process_which_ended_meanwhile_is_not_kept(rig: Rig) -> None:
    running(rig)
    rig.group.storage.mount_scratch(MountScratch(OTHER, 8, None))
    rig.group.storage.mount_overlay(MountOverlay(OTHER, (TOP, LAYER)))
    launch = rig.runtime.create

    def create(*arguments: Any) -> Any:
        rig.runtime.children[0].finish(0)  # from here on its number may be another process's
        return launch(*arguments)

    rig.runtime.create = create  # type: ignore[assignment,method-assign]
    with pytest.raises(FailedPrecondition, match="stopped meanwhile"):
        rig.group.create(creation()._replace(container=OTHER, pid_namespace_of=CONTAINER))
    assert OTHER not in rig.runtime.containers
    assert not rig.enforcer.poisoned


def test_a_container_that_cannot_be_deleted_poisons(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(1)
    rig.runtime.fail.add("delete")
    with pytest.raises(Unavailable):
        rig.group.delete(CONTAINER)
    assert "could not be removed" in rig.enforcer.poisoned
