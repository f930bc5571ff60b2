# SPDX-License-Identifier: Apache-2.0
"""A pod over fakes: what its containers are given, in which order things may come, and what is taken back."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from parma_guest import pause, requests
from parma_guest.attest.service import Session
from parma_guest.network_requests import Interface
from parma_guest.requests import MountOverlay, MountScratch, MountVolume
from parma_guest.runtime import RuntimeFailed
from parma_guest.values import ContainerId, ExecId, VolumeName
from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, Denied, FailedPrecondition, Malformed, Unavailable, Unsupported
from tests.guest.fakes import CONTAINER, OTHER, Rig, never

POD = ContainerId("ee" * 32)
VOLUMES = f"/run/gcs/c/{POD}/sandboxMounts/volumes/empty-dir"
CLOUD_VOLUMES = f"/run/gcs/c/{POD}/sandboxMounts/tmp/atlas/emptydir"
"""What policies for the cloud service call the same."""
PAUSE_PID = 1000
"""Of the first process that the fake runtime makes."""


def begin(rig: Rig, **fields: Any) -> None:
    rig.group.create_sandbox(requests.create_sandbox(pb.CreateSandboxRequest(sandbox_id=POD, **fields)))


def add(rig: Rig, container: ContainerId = CONTAINER, **fields: Any) -> dict[str, Any]:
    """Creates a container; its specification."""
    rig.group.storage.mount_scratch(MountScratch(container, None, 1 << 20))
    rig.group.storage.mount_overlay(MountOverlay(container, ()))
    return again(rig, container, **fields)


def again(rig: Rig, container: ContainerId, **fields: Any) -> dict[str, Any]:
    """The same for one whose root file system is there."""
    message = pb.CreateContainerRequest(container_id=container, process=pb.Process(args=["/bin/app"]), **fields)
    rig.group.create(requests.create_container(message))
    return rig.runtime.containers[container]


def bind(name: str, volumes: str = VOLUMES) -> pb.Mount:
    return pb.Mount(destination="/data", type="bind", source=f"{volumes}/{name}", options=["rbind", "rw"])


def namespaces(spec: dict[str, Any]) -> dict[str, str]:
    return {item["type"]: item.get("path", "") for item in spec["linux"]["namespaces"]}


def test_containers_of_a_pod_share_its_namespaces_and_memory_but_not_its_processes(rig: Rig) -> None:
    begin(rig, hostname="web")
    spec = add(rig)
    here = f"/proc/{PAUSE_PID}/ns"
    assert namespaces(spec) == {
        "ipc": f"{here}/ipc",
        "uts": f"{here}/uts",
        "network": "/run/parma/network",
        "mount": "",
        "cgroup": "",
        "pid": "",
    }
    assert "hostname" not in spec
    shm = next(mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")
    assert (shm["type"], shm["source"]) == ("bind", f"/run/gcs/c/{POD}/shm")
    assert f"/run/gcs/c/{POD}/shm" in rig.kernel.mounted()
    shared = add(rig, OTHER, pid_namespace_of=POD)
    assert namespaces(shared)["pid"] == f"{here}/pid"


def test_without_a_pod_everything_but_the_network_is_the_containers_own(rig: Rig) -> None:
    spec = add(rig)
    assert set(namespaces(spec).values()) == {"", "/run/parma/network"}
    assert spec["hostname"] == "localhost"
    assert next(mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")["type"] == "tmpfs"
    with pytest.raises(FailedPrecondition, match="there is no pod"):
        rig.group.mount_volume(MountVolume(VolumeName("cache"), None, 1 << 20))
    with pytest.raises(FailedPrecondition, match="there is no pod"):
        rig.group.stop_sandbox()
    with pytest.raises(FailedPrecondition, match="before its containers"):
        begin(rig)


def test_the_pods_process_has_no_rights_and_nothing_of_the_hosts_but_a_name_and_safe_sysctls(rig: Rig) -> None:
    begin(rig, hostname="web", sysctls={"net.ipv4.ip_unprivileged_port_start": "0"})
    spec = rig.runtime.containers[POD]
    process = spec["process"]
    assert process["args"] == ["/pause"]
    assert (process["user"]["uid"], process["noNewPrivileges"]) == (65534, True)
    assert not any(process["capabilities"].values())
    assert spec["root"] == {"path": "/run/parma/pause", "readonly": True}
    assert (spec["hostname"], spec["linux"]["sysctl"]) == ("web", {"net.ipv4.ip_unprivileged_port_start": "0"})
    assert rig.host.programs == {"/run/parma/pause": pause.program()}
    with pytest.raises(Unsupported):
        begin(rig, sysctls={"kernel.msgmax": "1"})
    with pytest.raises(Malformed):
        begin(rig, hostname="../etc")


def test_policies_are_not_asked_about_the_pods_process_and_cannot_be_about_its_signals(rig: Rig) -> None:
    begin(rig)
    assert rig.state == ()
    rig.group.start(POD)
    rig.engine.deny.add("signal_container_process")
    signal = requests.signal_process(pb.SignalProcessRequest(container_id=POD, signal=9))
    with pytest.raises(Denied):
        rig.group.signal(signal)


def test_in_a_pod_that_has_stopped_nothing_begins(rig: Rig) -> None:
    begin(rig)
    rig.runtime.children[0].finish(137)
    assert rig.group.wait(POD, ExecId(""), never).code == 137
    with pytest.raises(FailedPrecondition, match="the pod has stopped"):
        add(rig)


def will_listen(rig: Rig, *, listens: bool) -> None:
    """What the next container's session is."""
    rig.attestation.session = Session()
    rig.attestation.session.listens = listens


def with_network(rig: Rig) -> None:
    rig.network.interfaces = (Interface(b"\2" * 6, "eth0", 1500, (), (), ()),)


def test_endpoints_may_have_the_network_where_only_the_pods_process_and_ended_containers_are(rig: Rig) -> None:
    begin(rig)
    with_network(rig)
    add(rig, OTHER)
    will_listen(rig, listens=True)
    with pytest.raises(Unsupported, match="several containers"):
        add(rig)
    rig.runtime.children[1].finish(0)  # an init container
    assert namespaces(again(rig, CONTAINER))["network"] == "/run/parma/network"


def test_nobody_comes_to_where_endpoints_listen_before_they_are_gone(rig: Rig) -> None:
    begin(rig)
    with_network(rig)
    will_listen(rig, listens=True)
    add(rig)
    will_listen(rig, listens=False)
    with pytest.raises(Unsupported, match="several containers"):
        add(rig, OTHER)
    rig.runtime.children[1].finish(0)
    with pytest.raises(Unsupported, match="several containers"):  # who has ended still has an agent
        again(rig, OTHER)
    rig.group.delete(CONTAINER)
    again(rig, OTHER)


def test_an_empty_dir_is_a_file_system_of_its_own_that_the_policy_is_asked_about(rig: Rig) -> None:
    begin(rig)
    rig.group.mount_volume(MountVolume(VolumeName("cache"), 5, None))
    space = hashlib.sha256(f"{POD}/volume/cache".encode()).hexdigest()
    assert [point for point, _ in rig.engine.requests] == ["rw_mount_device", "scratch_mount"]
    assert rig.engine.requests[0][1]["target"] == f"/run/gcs/c/{space}"
    inside = f"/run/gcs/c/{space}/scratch/{space}"
    for volumes in (VOLUMES, CLOUD_VOLUMES):
        assert (inside, f"{volumes}/cache") in [mount[:2] for mount in rig.kernel.mounts]
    assert rig.host.modes == {inside: 0o777}
    with pytest.raises(AlreadyExists):
        rig.group.mount_volume(MountVolume(VolumeName("cache"), 6, None))
    with pytest.raises(FailedPrecondition, match="in use already"):
        rig.group.mount_volume(MountVolume(VolumeName("other"), 5, None))
    spec = add(rig, mounts=[bind("cache")])
    assert rig.host.prepared[-1] == f"{VOLUMES}/cache"
    assert spec["mounts"][-1]["source"].startswith("/run/gcs/pins/")  # where that is held


@pytest.mark.parametrize("volumes", [VOLUMES, CLOUD_VOLUMES])
@pytest.mark.parametrize("name", ["missing", "cache/below"])
def test_an_empty_dir_that_was_not_made_cannot_be_mounted(rig: Rig, name: str, volumes: str) -> None:
    begin(rig)
    rig.group.mount_volume(MountVolume(VolumeName("cache"), None, 1 << 20))
    with pytest.raises(FailedPrecondition, match="no such volume"):
        add(rig, mounts=[bind(name, volumes)])


@pytest.mark.parametrize("broken", [VOLUMES, CLOUD_VOLUMES])
def test_a_denied_or_broken_empty_dir_leaves_nothing(rig: Rig, broken: str) -> None:
    begin(rig)
    before = rig.kernel.mounted()
    rig.engine.deny.add("scratch_mount")
    with pytest.raises(Denied):
        rig.group.mount_volume(MountVolume(VolumeName("cache"), 5, None))
    rig.engine.deny.clear()
    rig.kernel.broken.add(f"{broken}/cache")
    with pytest.raises(Unavailable):
        rig.group.mount_volume(MountVolume(VolumeName("cache"), 5, None))
    assert rig.kernel.mounted() == before
    assert rig.mapper.devices == {}
    rig.kernel.broken.clear()
    rig.group.mount_volume(MountVolume(VolumeName("cache"), 5, None))


def test_a_pod_that_cannot_be_created_leaves_nothing(rig: Rig) -> None:
    rig.runtime.fail.add("create")
    with pytest.raises(RuntimeFailed):
        begin(rig)
    assert rig.kernel.mounts == []
    rig.runtime.fail.clear()
    begin(rig)


def test_host_name_and_sysctls_of_a_single_container_are_refused_in_a_pod(rig: Rig) -> None:
    begin(rig)
    with pytest.raises(Unsupported):
        add(rig, hostname="another")


@pytest.mark.parametrize("name", ["", "..", "a/b", "UPPER", "-a", "a" * 64, "a.b"])
def test_names_of_volumes_are_labels(name: str) -> None:
    with pytest.raises(Malformed):
        requests.mount_volume(pb.MountVolumeRequest(name=name, memory_bytes=1 << 20))
