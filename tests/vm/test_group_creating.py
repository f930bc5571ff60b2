# SPDX-License-Identifier: Apache-2.0
"""A container group over a made-up VM and a made-up guest: what is done in which order for a container."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path

import pytest

from parma_shim.guest import GuestClient
from parma_wire import guest_pb2 as pb
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
)
from tests.vm.group_world import CREATED, POLICY, World


def test_the_first_container_boots_the_vm_and_mounts_what_it_needs(world: World) -> None:
    world.create()
    assert world.policy == POLICY
    assert world.guest.methods == CREATED
    (overlay,) = (request for name, request in world.guest.requests if name == "MountOverlay")
    assert overlay.layer_targets == ["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"], "top layer first"
    (scratch,) = (request for name, request in world.guest.requests if name == "MountScratch")
    assert world.machine.disks == {0: True, 1: True, scratch.lun: False}
    assert world.group.vm_pid == 4711
    assert isinstance(world.group.guest, GuestClient)
    assert world.sources[0].closed


def test_the_second_container_shares_vm_and_layers(world: World) -> None:
    world.create()
    world.create("c2", policy=None)
    assert len(world.machines) == 1
    assert world.guest.methods == [*CREATED, "MountScratch", "MountOverlay", "CreateContainer"]


def test_scratch_space_in_guest_memory_needs_no_disk(tmp_path: Path) -> None:
    world = World(tmp_path, scratch="memory")
    world.create()
    (scratch,) = (request for name, request in world.guest.requests if name == "MountScratch")
    assert scratch == pb.MountScratchRequest(container_id=scratch.container_id, memory_bytes=16 << 20)
    assert world.machine.disks == {0: True, 1: True}
    world.group.delete_container("c1")
    assert world.machine.disks == {}
    world.close()


def fragment(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_fragments_are_handed_over_in_order_before_anything_is_mounted(world: World) -> None:
    world.create(fragments=[fragment(b"a"), {"trust-list": fragment(b"b")}, fragment(b"c")])
    put = ["PutDocument", "LoadFragment", "PutDocument", "LoadTrustList", "PutDocument", "LoadFragment"]
    assert world.guest.methods == [*put, *CREATED]
    assert [request.data for name, request in world.guest.requests if name == "PutDocument"] == [b"a", b"b", b"c"]


def test_a_fragment_that_the_vm_has_is_not_handed_over_again(world: World) -> None:
    world.create(fragments=[fragment(b"a")])
    world.create("c2", fragments=[fragment(b"a"), fragment(b"b")])
    assert [request.data for name, request in world.guest.requests if name == "PutDocument"] == [b"a", b"b"]


def test_a_fragment_that_is_refused_mounts_nothing_and_is_offered_again(world: World) -> None:
    world.guest.failures["LoadFragment"] = Denied("load_fragment denied: because")
    with pytest.raises(Denied, match="because"):
        world.create(fragments=[fragment(b"a")])
    assert "MountDevice" not in world.guest.methods
    world.guest.failures.clear()
    world.create(fragments=[fragment(b"a")])
    assert world.guest.methods.count("LoadFragment") == 2


def test_fragments_that_make_no_sense_boot_no_vm(world: World) -> None:
    with pytest.raises(Malformed):
        world.create(fragments=["%%%"])
    assert world.machines == []


@pytest.mark.parametrize("policy", [POLICY, None])
def test_the_second_containers_policy_is_absent_or_the_same(world: World, policy: bytes | None) -> None:
    world.create()
    world.create("c2", policy=policy)


def test_another_policy_for_the_same_vm_is_denied(world: World) -> None:
    world.create()
    with pytest.raises(Denied, match="another one"):
        world.create("c2", policy=b"package other\n")
    assert world.guest.methods == CREATED
    assert world.machine.alive


@pytest.mark.parametrize(
    ("policy", "error", "text"), [(None, FailedPrecondition, "parma policy generate"), (b"", Denied, "empty")]
)
def test_without_a_policy_nothing_is_started(
    world: World, policy: bytes | None, error: type[ParmaError], text: str
) -> None:
    with pytest.raises(error, match=text):
        world.create(policy=policy)
    assert world.machines == []
    assert world.sources == []


def test_without_a_guest_image_nothing_is_started(world: World) -> None:
    (world.directory / "image/manifest.json").unlink()
    with pytest.raises(NotFound, match="guest image"):
        world.create()
    assert world.machines == []


def test_a_name_that_is_taken_is_refused(world: World) -> None:
    world.create()
    with pytest.raises(AlreadyExists):
        world.create()


def test_a_second_create_waits_for_the_first_no_longer_than_its_deadline(world: World) -> None:
    world.guest.stuck.add("MountOverlay")

    def create() -> None:
        with pytest.raises(ParmaError):
            world.create()

    thread = threading.Thread(target=create)
    thread.start()
    while "MountOverlay" not in world.guest.methods:
        time.sleep(0.001)
    with pytest.raises(DeadlineExceeded, match="still being set up"):
        world.create("c2", deadline=time.monotonic() + 0.05)
    world.group.kill()
    thread.join(60)
