# SPDX-License-Identifier: Apache-2.0
"""The end of a group's VM, by itself or by order: who hears of it, and what is possible afterwards."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from parma_shim.vm.session import Session
from parma_wire.errors import FailedPrecondition, ParmaError, Unavailable
from tests.vm.group_world import World


def test_the_end_of_the_vm_is_reported_once_and_fails_what_waits(world: World) -> None:
    world.create()
    world.guest.stuck.add("WaitProcess")
    waiting = threading.Event()
    failed: list[ParmaError] = []

    def wait() -> None:
        waiting.set()
        try:
            world.group.guest.wait_process("0" * 64, "")
        except ParmaError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(60)
    world.machine.kill()
    thread.join(60)
    assert isinstance(failed[0], Unavailable)
    assert world.exits == [-9]


def test_after_the_end_of_the_vm_containers_can_be_deleted_but_not_added(world: World) -> None:
    world.create()
    world.machine.kill()
    with pytest.raises(Unavailable, match="ended"):
        world.create("c2")
    world.group.delete_container("c1")
    world.create()
    assert len(world.machines) == 2


def test_stream_connections_end_with_the_vm(world: World) -> None:
    world.create()
    client = world.group.open_stream_connection()
    other = world.group.open_stream_connection()
    other.close()
    other.join(60)
    world.machine.kill()
    client.join(60)
    assert client.closed


def test_without_a_vm_there_is_no_guest(world: World) -> None:
    with pytest.raises(FailedPrecondition):
        _ = world.group.guest
    with pytest.raises(FailedPrecondition):
        world.group.open_stream_connection()
    assert world.group.timings == {}
    assert world.group.status == {}


def test_shutdown_powers_off_first_and_can_be_repeated(world: World) -> None:
    world.create()
    world.group.shutdown()
    world.group.shutdown()
    assert world.guest.methods[-1] == "PowerOff"
    assert world.machine.destroyed


def test_shutdown_ends_a_create_that_is_stuck(world: World) -> None:
    world.guest.stuck.add("MountOverlay")
    errors: list[ParmaError] = []

    def create() -> None:
        try:
            world.create()
        except ParmaError as error:
            errors.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    while "MountOverlay" not in world.guest.methods:
        assert thread.is_alive()
        time.sleep(0.001)
    world.group.shutdown()
    thread.join(60)
    assert errors
    assert world.machine.destroyed


def test_kill_before_the_vm_is_there_ends_it_as_soon_as_it_is(world: World) -> None:
    original = world._boot

    def boot(*arguments: Any, **keywords: Any) -> Session:
        world.group.kill()
        return original(*arguments, **keywords)

    world.group._booter._boot_session = boot  # type: ignore[misc]
    with pytest.raises(Unavailable):
        world.create()
    assert world.machine.destroyed
