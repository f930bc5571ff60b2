# SPDX-License-Identifier: Apache-2.0
"""The sandbox service over a fake group: a pod's life without a pause container, and its tasks beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from parma_shim.api import cgroups_v1_pb2, cgroups_v2_pb2, cri_pb2, task_pb2
from parma_shim.api import sandbox_pb2 as pb
from parma_shim.sandbox.document import pod_document
from parma_shim.sandbox.service import ATTESTATION, SandboxService
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Malformed,
    NotFound,
    Unavailable,
    Unsupported,
    Unverified,
)
from tests.shim.support import Context, Rig, eventually

POD = "pod"
CONFIG = cri_pb2.PodSandboxConfig(
    metadata=cri_pb2.PodSandboxMetadata(name="web", namespace="default", uid="u-1"),
    hostname="web-0",
    annotations={"io.parma.policy": "cGFja2FnZSBwb2xpY3k="},
    linux=cri_pb2.LinuxPodSandboxConfig(
        cgroup_parent="/kubepods/pod1",
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        resources=cri_pb2.LinuxContainerResources(
            cpu_period=100000, cpu_quota=250000, cpu_shares=2048, memory_limit_in_bytes=1 << 30
        ),
    ),
)


def creation(config: cri_pb2.PodSandboxConfig = CONFIG, **fields: Any) -> pb.CreateSandboxRequest:
    options = AnyMessage(type_url="runtime.v1.PodSandboxConfig", value=config.SerializeToString())
    return pb.CreateSandboxRequest(**{"sandbox_id": POD, "bundle_path": "/b", "options": options, **fields})


class SandboxRig(Rig):
    """A shim for one sandbox."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sandbox = SandboxService(self.env, sandbox_id=POD, shutdown=self.ended.set)
        self.group.status = {"verdict": "attested"}

    def ask(self, method: str, request: Any, *, timeout: float | None = 10) -> Any:
        context = Context(timeout)
        try:
            return getattr(self.sandbox, method)(request, context)
        finally:
            context.finish()

    def start_sandbox(self) -> pb.StartSandboxResponse:
        self.ask("CreateSandbox", creation())
        response: pb.StartSandboxResponse = self.ask("StartSandbox", pb.StartSandboxRequest(sandbox_id=POD))
        return response

    def state(self, **fields: Any) -> str:
        return str(self.ask("SandboxStatus", pb.SandboxStatusRequest(sandbox_id=POD, **fields)).state)


@pytest.fixture
def rig(tmp_path: Path) -> SandboxRig:
    return SandboxRig(tmp_path)


def test_the_life_of_a_sandbox(rig: SandboxRig) -> None:
    started = rig.start_sandbox()
    assert (started.pid, started.created_at.seconds > 0) == (rig.group.vm_pid, True)
    assert rig.state() == "SANDBOX_READY"
    platform = rig.ask("Platform", pb.PlatformRequest(sandbox_id=POD)).platform
    assert (platform.os, platform.architecture) == ("linux", "amd64")
    rig.ask("PingSandbox", pb.PingRequest(sandbox_id=POD))
    for _ in range(2):
        rig.ask("StopSandbox", pb.StopSandboxRequest(sandbox_id=POD, timeout_secs=5))
    assert rig.state() == "SANDBOX_NOTREADY"
    waited = rig.ask("WaitSandbox", pb.WaitSandboxRequest(sandbox_id=POD))
    assert (waited.exit_status, waited.exited_at.seconds > 0) == (0, True)
    with pytest.raises(Unavailable):
        rig.ask("PingSandbox", pb.PingRequest(sandbox_id=POD))
    assert not rig.ended.is_set()
    for _ in range(2):
        rig.ask("ShutdownSandbox", pb.ShutdownSandboxRequest(sandbox_id=POD))
    assert rig.ended.is_set()


def test_the_vm_is_made_from_what_the_cri_says_of_the_pod(rig: SandboxRig) -> None:
    rig.start_sandbox()
    (spec,) = rig.group.created
    assert (spec.container_id, str(spec.bundle), spec.oci["hostname"]) == (POD, "/b", "web-0")
    annotations = spec.oci["annotations"]
    assert annotations["io.parma.policy"] == "cGFja2FnZSBwb2xpY3k="
    assert annotations["io.kubernetes.cri.container-type"] == "sandbox"
    assert annotations["io.kubernetes.cri.sandbox-memory"] == str(1 << 30)
    assert annotations["io.kubernetes.cri.sandbox-cpu-quota"] == "250000"
    assert spec.oci["linux"] == {
        "namespaces": [{"type": "network", "path": ""}],
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "cgroupsPath": "/kubepods/pod1/pod",
    }


def test_with_the_systemd_driver_the_cgroup_is_a_scope() -> None:
    config = cri_pb2.PodSandboxConfig()
    config.linux.cgroup_parent = "/kubepods.slice/kubepods-pod1.slice"
    assert pod_document(creation(config))["linux"]["cgroupsPath"] == "kubepods-pod1.slice:cri-containerd:pod"


@pytest.mark.parametrize("name", ["network", "pid", "ipc"])
def test_a_pod_that_shares_with_its_host_is_refused(rig: SandboxRig, name: str) -> None:
    config = cri_pb2.PodSandboxConfig()
    setattr(config.linux.security_context.namespace_options, name, cri_pb2.NODE)
    with pytest.raises(Unsupported):
        pod_document(creation(config))
    with pytest.raises(Malformed, match="shares nothing with its host"):  # Unimplemented would mean "no such service"
        rig.ask("CreateSandbox", creation(config))


def test_what_is_no_pod_is_refused(rig: SandboxRig) -> None:
    with pytest.raises(Malformed, match="another type"):
        rig.ask("CreateSandbox", creation(options=AnyMessage(type_url="x.y.Z")))
    with pytest.raises(Malformed, match="make no sense"):
        rig.ask("CreateSandbox", creation(options=AnyMessage(type_url="runtime.v1.PodSandboxConfig", value=b"\xff")))
    with pytest.raises(Malformed, match=r"did you mean io\.parma\.policy"):
        rig.ask("CreateSandbox", creation(cri_pb2.PodSandboxConfig(annotations={"io.parma.polici": "x"})))
    with pytest.raises(Malformed, match="another sandbox"):
        rig.ask("CreateSandbox", creation(sandbox_id="other"))


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("StartSandbox", pb.StartSandboxRequest),
        ("Platform", pb.PlatformRequest),
        ("StopSandbox", pb.StopSandboxRequest),
        ("WaitSandbox", pb.WaitSandboxRequest),
        ("SandboxStatus", pb.SandboxStatusRequest),
        ("PingSandbox", pb.PingRequest),
        ("SandboxMetrics", pb.SandboxMetricsRequest),
        ("UpdateSandbox", pb.UpdateSandboxRequest),
        ("ShutdownSandbox", pb.ShutdownSandboxRequest),
    ],
)
def test_there_is_no_other_sandbox(rig: SandboxRig, method: str, request_type: Callable[..., Any]) -> None:
    rig.ask("CreateSandbox", creation())
    with pytest.raises(NotFound):
        rig.ask(method, request_type(sandbox_id="other"))


def test_it_is_created_and_started_once(rig: SandboxRig) -> None:
    rig.start_sandbox()
    with pytest.raises(AlreadyExists):
        rig.ask("CreateSandbox", creation())
    with pytest.raises(FailedPrecondition):
        rig.ask("StartSandbox", pb.StartSandboxRequest(sandbox_id=POD))


def test_a_start_that_fails_leaves_no_vm_and_can_be_cleaned_up(rig: SandboxRig) -> None:
    def fail() -> None:
        raise Unverified("the evidence does not verify")

    rig.group.on_attest = fail
    with pytest.raises(Unverified):
        rig.start_sandbox()
    assert rig.group.killed
    assert rig.state() == "SANDBOX_NOTREADY"
    rig.ask("StopSandbox", pb.StopSandboxRequest(sandbox_id=POD))
    rig.ask("ShutdownSandbox", pb.ShutdownSandboxRequest(sandbox_id=POD))
    assert rig.ended.is_set()


def test_when_the_vm_dies_waiters_learn_it_and_stopping_still_works(rig: SandboxRig) -> None:
    rig.start_sandbox()
    statuses: list[int] = []
    waiting = threading.Thread(
        target=lambda: statuses.append(
            rig.ask("WaitSandbox", pb.WaitSandboxRequest(sandbox_id=POD), timeout=None).exit_status
        )
    )
    waiting.start()
    rig.group.machine_dies()
    waiting.join(10)
    assert statuses == [137]
    rig.ask("StopSandbox", pb.StopSandboxRequest(sandbox_id=POD))
    rig.ask("ShutdownSandbox", pb.ShutdownSandboxRequest(sandbox_id=POD))


def test_waiting_ends_with_its_deadline(rig: SandboxRig) -> None:
    rig.start_sandbox()
    with pytest.raises(DeadlineExceeded):
        rig.ask("WaitSandbox", pb.WaitSandboxRequest(sandbox_id=POD), timeout=0.01)


def test_the_sandbox_outlives_its_tasks(rig: SandboxRig) -> None:
    rig.start_sandbox()
    rig.create("a", "exit", "3")
    rig.call("Start", task_pb2.StartRequest(id="a"))
    assert rig.call("Wait", task_pb2.WaitRequest(id="a")).exit_status == 3
    rig.call("Delete", task_pb2.DeleteRequest(id="a"))
    rig.call("Shutdown", task_pb2.ShutdownRequest(id="a"))
    assert (rig.group.killed, rig.ended.is_set(), rig.group.deleted) == (False, False, ["a"])
    assert rig.state() == "SANDBOX_READY"
    rig.create("a2", "sleep")  # restarted, under another id
    rig.call("Start", task_pb2.StartRequest(id="a2"))
    rig.ask("StopSandbox", pb.StopSandboxRequest(sandbox_id=POD))
    assert rig.call("Wait", task_pb2.WaitRequest(id="a2")).exit_status == 137
    eventually(lambda: "/tasks/exit" in [topic for topic, _ in rig.events], "the exit's event")


def test_the_status_shows_the_attested_policy_when_asked(rig: SandboxRig) -> None:
    rig.start_sandbox()
    quiet = rig.ask("SandboxStatus", pb.SandboxStatusRequest(sandbox_id=POD))
    assert dict(quiet.info) == {}
    request = pb.SandboxStatusRequest(sandbox_id=POD, verbose=True)
    assert dict(rig.ask("SandboxStatus", request).info) == {ATTESTATION: '{"verdict": "attested"}'}
    rig.group.status_document = '{"verdict": "attested", "evidence": {}}'
    assert dict(rig.ask("SandboxStatus", request).info) == {ATTESTATION: rig.group.status_document}


def test_metrics_are_the_sum_over_the_containers(rig: SandboxRig) -> None:
    rig.start_sandbox()
    one = rig.group.guest.stats("")
    for name in ("a", "b"):
        rig.create(name, "sleep")
        rig.call("Start", task_pb2.StartRequest(id=name))
    metric = rig.ask("SandboxMetrics", pb.SandboxMetricsRequest(sandbox_id=POD)).metrics
    assert metric.id == POD
    if metric.data.type_url == "io.containerd.cgroups.v2.Metrics":
        found = cgroups_v2_pb2.Metrics.FromString(metric.data.value).memory.usage
    else:
        found = cgroups_v1_pb2.Metrics.FromString(metric.data.value).memory.usage.usage
    assert found == 2 * one.memory_usage > 0


def test_a_vm_cannot_be_made_larger(rig: SandboxRig) -> None:
    rig.start_sandbox()
    with pytest.raises(Unsupported):
        rig.ask("UpdateSandbox", pb.UpdateSandboxRequest(sandbox_id=POD))
