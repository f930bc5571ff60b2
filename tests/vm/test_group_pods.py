# SPDX-License-Identifier: Apache-2.0
"""Groups that are pods: what keeps them together, their emptyDirs, and whose processes are shared."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parma_shim.task.ports import ContainerSpec
from parma_wire.errors import Denied, FailedPrecondition, Unavailable, Unsupported
from tests.vm.group_world import CREATED, POLICY, World
from tests.vm.support import soon

SHARED_PIDS = [{"type": "pid", "path": "/proc/1/ns/pid"}]
POD_ID = "9" * 64


def member(name: str, namespaces: Sequence[object] = (), **oci: Any) -> ContainerSpec:
    document = {"process": {"args": ["x"], "cwd": "/"}, "linux": {"namespaces": list(namespaces)}, **oci}
    return ContainerSpec(name, name.encode().hex().rjust(64, "0"), Path("/"), document, False, False)


def begin_pod(world: World, **oci: Any) -> None:
    annotations = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.parma.policy": base64.b64encode(POLICY).decode(),
    }
    document = {"annotations": annotations, "hostname": "web", "process": {"args": ["/pause"]}, **oci}
    world.group.create_container(ContainerSpec("c1", POD_ID, world.directory, document, False, False), deadline=soon())


def test_a_container_may_join_the_pid_namespace_of_its_groups_first_one(world: World) -> None:
    world.create()
    world.group.create_container(member("c2", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == b"c1".hex().rjust(64, "0")


def test_a_pod_needs_no_image_of_its_own(world: World) -> None:
    begin_pod(world, linux={"sysctl": {"net.ipv4.tcp_syncookies": "1"}})
    assert world.guest.methods == ["CreateSandbox"]
    request = next(request for name, request in world.guest.requests if name == "CreateSandbox")
    assert (request.sandbox_id, request.hostname) == (POD_ID, "web")
    assert dict(request.sysctls) == {"net.ipv4.tcp_syncookies": "1"}
    assert world.sources == []
    world.group.create_container(member("c2"), deadline=soon())
    assert world.guest.methods[1:] == CREATED
    assert len(world.machines) == 1


def test_a_pod_without_a_policy_is_refused_before_anything_boots(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="no execution policy"):
        begin_pod(world, annotations={"io.kubernetes.cri.container-type": "sandbox"})
    assert world.machines == []


def test_empty_dirs_are_made_once_for_the_pod_and_never_come_from_the_host(world: World) -> None:
    begin_pod(world)
    source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    mounts = [{"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rw"]}]
    limits = {"io.parma.volume-limits": "cache=64Mi"}
    for name in ("c2", "c3"):
        world.group.create_container(member(name, mounts=mounts, annotations=limits), deadline=soon())
        (mount,) = world.guest.requests[-1][1].mounts
        assert mount.source == f"/run/gcs/c/{POD_ID}/sandboxMounts/volumes/empty-dir/cache"
    (volume,) = [request for name, request in world.guest.requests if name == "MountVolume"]
    assert (volume.name, volume.WhichOneof("backing")) == ("cache", "lun")
    assert world.machine.disks[volume.lun] is False


def test_a_volume_that_fails_is_tried_again_and_its_disk_is_not_left(world: World) -> None:
    begin_pod(world)
    source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    mounts = [{"destination": "/data", "type": "bind", "source": source}]
    world.guest.failures["MountVolume"] = Unavailable("no")
    with pytest.raises(Unavailable):
        world.group.create_container(member("c2", mounts=mounts), deadline=soon())
    assert world.machine.disks == {}
    assert world.machine.alive
    world.guest.failures.clear()
    world.group.create_container(member("c2", mounts=mounts), deadline=soon())


def test_shared_processes_are_the_pods_unless_a_container_is_there_to_look_at(world: World) -> None:
    begin_pod(world)
    world.group.create_container(member("c2", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == POD_ID
    world.group.create_container(member("c3"), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == ""
    world.group.create_container(member("c4", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == b"c3".hex().rjust(64, "0")
    world.group.create_container(member("c5"), deadline=soon())
    with pytest.raises(Unsupported, match="cannot be told"):
        world.group.create_container(member("c6", SHARED_PIDS), deadline=soon())


def test_the_pod_stays_when_a_container_fails_or_goes(world: World) -> None:
    begin_pod(world)
    world.guest.failures["CreateContainer"] = Denied("no")
    with pytest.raises(Denied):
        world.group.create_container(member("c2"), deadline=soon())
    assert world.machine.alive
    world.guest.failures.clear()
    world.group.create_container(member("c2"), deadline=soon())
    world.group.delete_container("c2")
    world.group.delete_container("c1")
    assert world.guest.methods.count("DeleteContainer") == 1  # the guest keeps the pod's process until the end
