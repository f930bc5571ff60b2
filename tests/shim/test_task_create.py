# SPDX-License-Identifier: Apache-2.0
"""Create and Start: from nothing to a running container, or back to nothing. Over a fake guest."""

from __future__ import annotations

import time

import pytest

from parma_shim.api import task_pb2
from parma_shim.task.process import guest_container_id
from parma_wire.errors import (
    AlreadyExists,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    Unavailable,
    Unsupported,
    Unverified,
)
from tests.shim.support import LIFE, Rig


def test_a_containers_life_from_create_to_delete(rig: Rig) -> None:
    assert rig.create("a", "exit", "3") == 4242
    assert rig.status("a") == "CREATED"
    assert rig.call("Start", task_pb2.StartRequest(id="a")).pid == 4242
    assert rig.wait("a") == 3
    assert rig.status("a") == "STOPPED"
    before = time.time_ns()
    response = rig.delete("a")
    assert (response.pid, response.exit_status) == (4242, 3)
    assert 0 < response.exited_at.ToNanoseconds() <= before
    assert rig.topics() == LIFE
    with pytest.raises(NotFound):
        rig.status("a")


def test_the_guest_knows_the_container_by_a_hash_of_namespace_and_id(rig: Rig) -> None:
    rig.create("a b/..", "sleep")
    assert rig.group.created[0].guest_id == guest_container_id("default", "a b/..")
    assert len(rig.group.created[0].guest_id) == 64


def test_create_twice_says_already_exists(rig: Rig) -> None:
    rig.create("a")
    with pytest.raises(AlreadyExists):
        rig.create("a")


def test_a_denied_create_leaves_nothing_and_no_event(rig: Rig) -> None:
    with pytest.raises(Denied, match="invalid command"):
        rig.create("a", "denied")
    assert rig.events == []
    with pytest.raises(NotFound):
        rig.delete("a")
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="a"))
    assert rig.ended.is_set()


def test_a_checkpoint_is_unimplemented_both_ways(rig: Rig) -> None:
    with pytest.raises(Unsupported):
        rig.create("a", checkpoint="/somewhere")
    with pytest.raises(Unsupported):
        rig.call("Checkpoint", task_pb2.CheckpointTaskRequest(id="a"))


def test_what_is_unsupported_in_a_create_is_not_taken_for_an_older_shim(rig: Rig) -> None:
    """containerd 2.x answers Unimplemented with a second try in version 2 of the task API."""
    with pytest.raises(Malformed, match="--net-host"):
        rig.create("a", linux={"namespaces": [{"type": "pid"}]})


def test_a_bundle_without_specification_is_not_found(rig: Rig, tmp_path: object) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        rig.call("Create", task_pb2.CreateTaskRequest(id="a", bundle=str(tmp_path)))


def test_start_twice_is_refused(rig: Rig) -> None:
    rig.run("a")
    with pytest.raises(FailedPrecondition):
        rig.call("Start", task_pb2.StartRequest(id="a"))


def test_a_create_that_its_client_deletes_is_undone(rig: Rig) -> None:
    def impatient(_spec: object) -> None:
        with pytest.raises(NotFound):
            rig.delete("a")

    rig.group.on_create = impatient
    with pytest.raises((FailedPrecondition, Unavailable)):
        rig.create("a")
    assert rig.group.killed
    assert rig.events == []
    assert rig.env.tasks.all() == []


def test_the_status_is_refreshed_after_the_start(rig: Rig) -> None:
    rig.create("a")
    assert rig.group.refreshed == 0
    rig.call("Start", task_pb2.StartRequest(id="a"))
    assert rig.group.refreshed == 1


def test_an_id_that_is_taken_again_is_another_one_in_the_guest(rig: Rig) -> None:
    for name in ("pod", "a", "a"):
        rig.create(name)
        if name == "a":
            rig.call("Delete", task_pb2.DeleteRequest(id="a"))
    assert len({created.guest_id for created in rig.group.created}) == 3


def test_a_container_in_a_vm_that_does_not_verify_is_refused_and_labelled(rig: Rig) -> None:
    def refuse() -> None:
        raise Unverified("the VM's evidence does not verify")

    rig.group.on_attest = refuse
    rig.create("a")
    with pytest.raises(Unverified):
        rig.call("Start", task_pb2.StartRequest(id="a"))
    assert rig.status("a") == "STOPPED"
    assert rig.group.refreshed == 1
