# SPDX-License-Identifier: Apache-2.0
"""Deleting containers of a group: in reverse, while others are set up, and again after it has failed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from parma_wire.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from tests.shim.support import eventually
from tests.vm.group_world import World


def test_deleting_takes_back_everything_in_reverse(world: World) -> None:
    world.create()
    world.guest.requests.clear()
    world.group.delete_container("c1")
    assert world.guest.methods == [
        "DeleteContainer",
        "UnmountOverlay",
        "UnmountScratch",
        "UnmountDevice",
        "UnmountDevice",
    ]
    assert world.machine.disks == {}
    assert world.machine.alive
    with pytest.raises(NotFound):
        world.group.delete_container("c1")


def test_a_container_that_runs_is_not_deleted(world: World) -> None:
    world.create()
    world.guest.failures["DeleteContainer"] = FailedPrecondition("it runs")
    with pytest.raises(FailedPrecondition, match="it runs"):
        world.group.delete_container("c1")
    assert len(world.machine.disks) == 3
    world.guest.failures.clear()
    world.group.delete_container("c1")
    assert world.machine.disks == {}


def test_a_deletion_that_failed_is_made_up_for_when_the_name_is_wanted_again(world: World) -> None:
    world.create()
    world.create("c2")
    disks = dict(world.machine.disks)
    world.guest.failures["DeleteContainer"] = Unavailable("busy")
    with pytest.raises(Unavailable, match="busy"):
        world.group.delete_container("c2")
    with pytest.raises(Unavailable, match="busy"):
        world.create("c2")
    del world.guest.failures["DeleteContainer"]
    world.create("c2")
    assert world.guest.methods.count("DeleteContainer") == 3
    assert world.machine.disks == disks
    with pytest.raises(AlreadyExists):
        world.create("c2")


def test_what_the_end_of_the_vm_interrupts_is_deleted(world: World) -> None:
    world.create()
    world.create("c2")
    world.guest.failures["DeleteContainer"] = Unavailable("the connection is closed")
    world.group.kill()
    world.group.delete_container("c2")
    with pytest.raises(NotFound):
        world.group.delete_container("c2")


@contextlib.contextmanager
def setting_up(world: World) -> Iterator[None]:
    """Meanwhile a container is being created whose layers are not ready."""
    begun = len(world.sources)
    world.layers_ready.clear()
    thread = threading.Thread(target=world.create, args=("slow",))
    thread.start()
    try:
        eventually(lambda: len(world.sources) > begun)
        yield
    finally:
        world.layers_ready.set()
        thread.join(60)


def test_a_deletion_whose_turn_comes_too_late_for_its_caller_is_done_in_its_turn(world: World) -> None:
    world.create()
    disks = dict(world.machine.disks)
    world.create("c2")
    with setting_up(world), pytest.raises(DeadlineExceeded, match="deleted after them"):
        world.group.delete_container("c2", deadline=time.monotonic())
    eventually(lambda: "UnmountScratch" in world.guest.methods)
    world.group.delete_container("slow")
    assert world.machine.disks == disks
    with pytest.raises(NotFound):
        world.group.delete_container("c2")


def test_a_late_deletion_spares_a_later_container_of_the_same_name(world: World) -> None:
    world.create()
    world.create("c2")
    with setting_up(world), pytest.raises(DeadlineExceeded):
        world.group.delete_container("c2", deadline=time.monotonic())
    world.create("c2")  # before the late deletion or after it
    eventually(lambda: "late-delete" not in [thread.name for thread in threading.enumerate()])
    assert world.guest.methods.count("DeleteContainer") == 1
    with pytest.raises(AlreadyExists):
        world.create("c2")


def test_a_late_deletion_that_fails_is_logged_and_made_up_for_when_the_name_is_wanted(world: World) -> None:
    world.create()
    world.create("c2")
    world.guest.failures["DeleteContainer"] = Unavailable("busy")
    with setting_up(world), pytest.raises(DeadlineExceeded):
        world.group.delete_container("c2", deadline=time.monotonic())
    eventually(lambda: "container c2 could not be deleted late: busy" in world.log)
    del world.guest.failures["DeleteContainer"]
    world.create("c2")
