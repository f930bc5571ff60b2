# SPDX-License-Identifier: Apache-2.0
"""A container that cannot be created: what is taken back, what is reported, and what stays."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from parma_wire.errors import DeadlineExceeded, Denied, NotFound, Unavailable
from tests.shim.support import eventually
from tests.vm.group_world import World


@pytest.mark.parametrize("method", ["MountDevice", "MountScratch", "MountOverlay", "CreateContainer"])
def test_a_failure_in_the_first_container_ends_the_vm(world: World, method: str) -> None:
    world.guest.failures[method] = Denied(f"{method} denied")
    with pytest.raises(Denied, match=f"{method} denied"):
        world.create()
    assert world.machine.destroyed
    assert world.group.vm_pid == 0
    assert world.sources[0].closed
    world.guest.failures.clear()
    world.create()
    assert len(world.machines) == 2


@pytest.mark.parametrize(
    ("method", "undone"),
    [
        ("MountScratch", []),
        ("MountOverlay", ["UnmountScratch"]),
        ("CreateContainer", ["UnmountOverlay", "UnmountScratch"]),
    ],
)
def test_a_failure_in_the_second_container_leaves_the_first_alone(world: World, method: str, undone: list[str]) -> None:
    world.create()
    world.guest.failures[method] = Denied("no")
    with pytest.raises(Denied):
        world.create("c2")
    assert world.machine.alive
    assert [name for name in world.guest.methods if name.startswith("Un")] == undone
    assert len(world.machine.disks) == 3


def test_a_guest_that_is_stuck_while_a_container_is_taken_back_is_killed(tmp_path: Path) -> None:
    world = World(tmp_path, call_timeout=3.0)  # which all that is answered must stay below
    world.create()
    world.guest.failures["CreateContainer"] = Denied("no")
    world.guest.stuck.add("UnmountOverlay")
    with pytest.raises(Denied):
        world.create("c2")
    assert not world.machine.alive
    assert world.exits == [-9]
    world.close()


def test_no_layers_means_no_vm_and_the_layers_error_is_the_one_reported(world: World) -> None:
    world.layer_error = NotFound("the blobs are gone")
    with pytest.raises(NotFound, match="blobs"):
        world.create()
    assert all(machine.destroyed for machine in world.machines)
    world.layer_error = None
    world.create()


def test_a_failed_boot_is_reported_and_can_be_tried_again(world: World) -> None:
    world.boot_error = Unavailable("no QEMU")
    with pytest.raises(Unavailable, match="no QEMU"):
        world.create()
    assert world.sources[0].closed
    assert world.group.vm_pid == 0
    world.boot_error = None
    world.create()


def test_the_callers_deadline_bounds_every_step(world: World) -> None:
    world.guest.stuck.add("MountDevice")
    with pytest.raises(DeadlineExceeded):
        world.create(deadline=time.monotonic() + 1)
    assert world.machine.destroyed


def test_beside_others_what_was_begun_is_answered_and_taken_back_when_the_callers_time_is_over(world: World) -> None:
    world.create()
    world.guest.late["MountScratch"] = patience = 2.0  # begun before the time is over, and answered after it
    with pytest.raises(DeadlineExceeded, match="in time"):
        world.create("c2", deadline=time.monotonic() + patience)
    assert world.guest.methods[-2:] == ["MountScratch", "UnmountScratch"]
    assert len(world.machine.disks) == 3
    assert world.machine.alive
    world.guest.late.clear()
    world.create("c2")


def test_files_of_the_host_are_not_looked_at_any_more_when_the_vm_ends_with_its_only_container(tmp_path: Path) -> None:
    def watchers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "files"}

    before = watchers()
    world = World(tmp_path, file_updates=60.0)
    world.guest.failures["CreateContainer"] = Denied("no")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    mount = {"type": "bind", "source": str(tmp_path / "hosts"), "destination": "/etc/hosts", "options": ["rbind"]}
    with pytest.raises(Denied):
        world.create(mounts=[mount])
    assert "ProvideFiles" in world.guest.methods
    eventually(lambda: watchers() <= before)
    world.close()
