# SPDX-License-Identifier: Apache-2.0
"""The life of a container in the enforcer: which step may follow which, and what is left at the end."""

from __future__ import annotations

import pytest

from parma_guest.requests import MountOverlay, MountScratch
from parma_guest.values import ExecId, LayerTarget, Resources
from parma_wire.errors import AlreadyExists, FailedPrecondition, NotFound
from tests.guest.fakes import CONTAINER, OTHER, Rig, never
from tests.guest.group_steps import INIT, LAYER, TOP, creation, execution, mount, rootfs, running


def test_a_whole_life_leaves_nothing(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution())
    for child in rig.runtime.children:
        child.finish(0)
    assert rig.group.wait(CONTAINER, INIT, never).code == 0
    rig.group.delete_process(CONTAINER, ExecId("one"))
    rig.group.delete(CONTAINER)
    rig.group.storage.unmount_overlay(CONTAINER)
    rig.group.storage.unmount_scratch(CONTAINER)
    rig.group.storage.unmount_device(LAYER)
    rig.group.storage.unmount_device(TOP)
    assert rig.kernel.mounts == []
    assert rig.mapper.devices == {}
    assert rig.runtime.containers == {}
    assert rig.devices.forgotten == ["/dev/sd7", "/dev/sd0", "/dev/sd1"]
    assert rig.state == (
        *("mount_device", "mount_device", "rw_mount_device", "scratch_mount", "mount_overlay", "create_container"),
        *("exec_in_container", "shutdown_container", "unmount_overlay", "scratch_unmount", "rw_unmount_device"),
        *("unmount_device", "unmount_device"),
    )


def test_nothing_can_be_done_out_of_order(rig: Rig) -> None:
    with pytest.raises(FailedPrecondition, match="no scratch"):
        rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (LAYER,)))
    with pytest.raises(FailedPrecondition, match="no root file system"):
        rig.group.create(creation())
    rootfs(rig)
    for act in (
        lambda: rig.group.start(CONTAINER),
        lambda: rig.group.storage.unmount_overlay(OTHER),
        lambda: rig.group.storage.unmount_scratch(OTHER),
        lambda: rig.group.storage.unmount_device(LayerTarget("/run/mounts/scsi/m5")),
        lambda: rig.group.execute(execution()),
    ):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_device(LAYER)
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_scratch(CONTAINER)
    rig.group.create(creation())
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_overlay(CONTAINER)
    with pytest.raises(FailedPrecondition, match="not been started"):
        rig.group.execute(execution())
    rig.group.start(CONTAINER)
    with pytest.raises(FailedPrecondition, match="before"):
        rig.group.start(CONTAINER)
    with pytest.raises(FailedPrecondition, match="running"):
        rig.group.delete(CONTAINER)
    assert rig.enforcer.poisoned == ""


@pytest.mark.parametrize("target", [LAYER, TOP])
def test_one_mount_point_and_one_disk_are_used_once(rig: Rig, target: LayerTarget) -> None:
    mount(rig)
    with pytest.raises(FailedPrecondition):
        mount(rig, target, 0)
    with pytest.raises(FailedPrecondition):
        rig.group.storage.mount_scratch(MountScratch(CONTAINER, 0, None))
    assert rig.state == ("mount_device",)


def test_ids_are_never_used_again(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution("one"))
    rig.runtime.children[1].finish(0)
    rig.group.delete_process(CONTAINER, ExecId("one"))
    with pytest.raises(AlreadyExists):
        rig.group.execute(execution("one"))
    rig.runtime.children[0].finish(0)
    rig.group.delete(CONTAINER)
    with pytest.raises(AlreadyExists):
        rig.group.create(creation())


def test_limits_can_be_changed_before_the_start_and_not_after_the_end(rig: Rig) -> None:
    rootfs(rig)
    rig.group.create(creation())
    rig.group.update(CONTAINER, Resources(pids_limit=5))
    assert rig.runtime.documents[-1] == {"pids": {"limit": 5}}
    rig.runtime.children[0].finish(0)
    with pytest.raises(FailedPrecondition, match="stopped"):
        rig.group.update(CONTAINER, Resources(pids_limit=6))
