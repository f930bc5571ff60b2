# SPDX-License-Identifier: Apache-2.0
"""The guest's client against a guest that may say anything."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

import ttrpc
from parma_shim.guest import MAX_PROCESSES, BootPhase, GuestClient, GuestProcess, clean_text, guest_error
from parma_wire import guest_pb2 as pb
from parma_wire.errors import (
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
    Unavailable,
)
from parma_wire.limits import DOCUMENT_CHUNK, POLICY_CHUNK
from tests.shim.support import eventually
from tests.vm.fake_guest import FakeGuest
from tests.vm.support import soon

ID = "a" * 64

M = TypeVar("M", bound=Message)


def test_hello_gives_version_tee_and_phases(guest: FakeGuest, client: GuestClient) -> None:
    phases = [pb.BootPhase(name="kernel", uptime_us=5), pb.BootPhase(name="ready", uptime_us=9)]
    guest.answers["Hello"] = pb.HelloResponse(version="1.0\x1b[2J", tee="none", phases=phases)
    greeting = client.hello()
    assert greeting == ("1.0 [2J", "none", (BootPhase("kernel", 5), BootPhase("ready", 9)))


def test_a_guest_answers_that_answers_the_question_or_another_meanwhile(guest: FakeGuest, client: GuestClient) -> None:
    assert client.answers(30)
    guest.failures["Hello"] = Unavailable("the connection is closed")
    assert not client.answers(30)
    guest.stuck.add("Hello")
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(client.answers(30)))
    asking.start()
    eventually(lambda: [name for name, _ in guest.requests].count("Hello") == 3)
    client.pause(ID)
    guest.released.set()
    asking.join(60)
    assert found == [True]


def test_the_policy_travels_in_pieces_in_order(guest: FakeGuest, client: GuestClient) -> None:
    policy = bytes(range(256)) * 200
    assert client.set_policy(policy) == (hashlib.sha256(policy).digest(), False)
    assert guest.policy == policy
    sizes = [len(request.data) for name, request in guest.requests if name == "PutPolicy"]
    assert max(sizes) == POLICY_CHUNK
    assert guest.requests[-1] == ("SetPolicy", pb.SetPolicyRequest(size=len(policy)))


@pytest.mark.parametrize("is_trust_list", [False, True])
def test_a_signed_document_travels_in_pieces_in_order(
    guest: FakeGuest, client: GuestClient, *, is_trust_list: bool
) -> None:
    document = bytes(range(256)) * 200
    client.load_document(document, is_trust_list=is_trust_list)
    pieces = [request for name, request in guest.requests if name == "PutDocument"]
    assert b"".join(piece.data for piece in pieces) == document
    assert [piece.offset for piece in pieces] == list(range(0, len(document), DOCUMENT_CHUNK))
    assert guest.requests[-1][0] == ("LoadTrustList" if is_trust_list else "LoadFragment")
    assert guest.requests[-1][1].size == len(document)


@pytest.mark.parametrize(
    ("method", "answer", "call"),
    [
        ("Hello", pb.HelloResponse(phases=[pb.BootPhase()] * 100), lambda c: c.hello()),
        ("SetPolicy", pb.SetPolicyResponse(policy_sha256=b"short"), lambda c: c.set_policy(b"x")),
        ("Evidence", pb.EvidenceResponse(report=b"x" * 1183), lambda c: c.evidence(bytes(64))),
        ("Evidence", pb.EvidenceResponse(report=b"x" * 1185), lambda c: c.evidence(bytes(64))),
        (
            "CreateContainer",
            pb.CreateContainerResponse(pid=0),
            lambda c: c.create_container(pb.CreateContainerRequest()),
        ),
        ("ExecProcess", pb.ExecProcessResponse(pid=1 << 31), lambda c: c.exec_process(ID, "e", pb.Process())),
        ("WaitProcess", pb.WaitProcessResponse(exit_status=256), lambda c: c.wait_process(ID, "")),
        (
            "ListProcesses",
            pb.ListProcessesResponse(processes=[pb.ListProcessesResponse.Entry(pid=1)] * (MAX_PROCESSES + 1)),
            lambda c: c.list_processes(ID),
        ),
        (
            "ListProcesses",
            pb.ListProcessesResponse(processes=[pb.ListProcessesResponse.Entry(pid=1, exec_id="../x")]),
            lambda c: c.list_processes(ID),
        ),
        (
            "ListProcesses",
            pb.ListProcessesResponse(processes=[pb.ListProcessesResponse.Entry(pid=0)]),
            lambda c: c.list_processes(ID),
        ),
    ],
)
def test_an_answer_that_cannot_be_true_is_refused(
    guest: FakeGuest, client: GuestClient, method: str, answer: Any, call: Any
) -> None:
    guest.answers[method] = answer
    with pytest.raises(Malformed):
        call(client)


def test_each_method_sends_its_own_request(guest: FakeGuest, client: GuestClient) -> None:
    entry = pb.ListProcessesResponse.Entry(pid=7, exec_id="e1")
    guest.answers["ListProcesses"] = pb.ListProcessesResponse(processes=[entry])
    guest.answers["WaitProcess"] = pb.WaitProcessResponse(exit_status=137, oom_killed=True)
    guest.answers["ExecProcess"] = pb.ExecProcessResponse(pid=9)
    guest.answers["Evidence"] = pb.EvidenceResponse(report=b"r" * 1184)
    process = pb.Process(args=["/bin/true"])
    assert client.create_container(pb.CreateContainerRequest(container_id=ID)) == 42
    assert client.exec_process(ID, "e1", process) == 9
    assert client.list_processes(ID) == [GuestProcess(7, "e1", False)]
    assert client.wait_process(ID, "e1") == (137, True)
    assert client.evidence(b"n" * 64) == b"r" * 1184
    client.mount_device(3, "/run/mounts/scsi/m0", "ab" * 32, 77)
    client.unmount_device("/run/mounts/scsi/m0")
    client.mount_scratch_disk(ID, 4)
    client.mount_scratch_memory(ID, 1 << 20)
    client.unmount_scratch(ID)
    client.mount_overlay(
        pb.MountOverlayRequest(container_id=ID, layer_targets=["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"])
    )
    client.unmount_overlay(ID)
    client.start_container(ID)
    client.signal_process(ID, "", 9, all_processes=True)
    client.resize_pty(ID, "e1", 80, 24)
    client.delete_process(ID, "e1")
    client.delete_container(ID)
    client.pause(ID)
    client.resume(ID)
    client.update_resources(ID, pb.Resources(memory_limit=5))
    client.power_off()
    assert guest.requests == [
        ("CreateContainer", pb.CreateContainerRequest(container_id=ID)),
        ("ExecProcess", pb.ExecProcessRequest(container_id=ID, exec_id="e1", process=process)),
        ("ListProcesses", pb.ListProcessesRequest(container_id=ID)),
        ("WaitProcess", pb.WaitProcessRequest(container_id=ID, exec_id="e1")),
        ("Evidence", pb.EvidenceRequest(nonce=b"n" * 64)),
        (
            "MountDevice",
            pb.MountDeviceRequest(lun=3, target="/run/mounts/scsi/m0", device_hash="ab" * 32, data_blocks=77),
        ),
        ("UnmountDevice", pb.UnmountDeviceRequest(target="/run/mounts/scsi/m0")),
        ("MountScratch", pb.MountScratchRequest(container_id=ID, lun=4)),
        ("MountScratch", pb.MountScratchRequest(container_id=ID, memory_bytes=1 << 20)),
        ("UnmountScratch", pb.UnmountScratchRequest(container_id=ID)),
        (
            "MountOverlay",
            pb.MountOverlayRequest(container_id=ID, layer_targets=["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"]),
        ),
        ("UnmountOverlay", pb.UnmountOverlayRequest(container_id=ID)),
        ("StartContainer", pb.StartContainerRequest(container_id=ID)),
        ("SignalProcess", pb.SignalProcessRequest(container_id=ID, signal=9, all=True)),
        ("ResizePty", pb.ResizePtyRequest(container_id=ID, exec_id="e1", width=80, height=24)),
        ("DeleteProcess", pb.DeleteProcessRequest(container_id=ID, exec_id="e1")),
        ("DeleteContainer", pb.DeleteContainerRequest(container_id=ID)),
        ("PauseContainer", pb.PauseContainerRequest(container_id=ID)),
        ("ResumeContainer", pb.ResumeContainerRequest(container_id=ID)),
        ("UpdateResources", pb.UpdateResourcesRequest(container_id=ID, resources=pb.Resources(memory_limit=5))),
        ("PowerOff", pb.PowerOffRequest()),
    ]


@pytest.mark.parametrize("error", [Denied("no"), NotFound("no"), FailedPrecondition("no"), Malformed("no")])
def test_the_guests_error_keeps_its_class_and_text(guest: FakeGuest, client: GuestClient, error: ParmaError) -> None:
    guest.failures["StartContainer"] = error
    with pytest.raises(type(error), match="no"):
        client.start_container(ID)


def test_a_guest_that_does_not_answer_runs_into_the_callers_deadline(guest: FakeGuest, client: GuestClient) -> None:
    guest.stuck.add("Stats")
    with pytest.raises(DeadlineExceeded, match="Stats"):
        client.stats(ID, deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded, match="no time left"):
        client.stats(ID, deadline=time.monotonic() - 1)


def test_without_a_deadline_the_configured_time_counts(guest: FakeGuest) -> None:
    guest.stuck.add("Stats")
    connection = ttrpc.Client(guest.connect())
    with pytest.raises(DeadlineExceeded):
        GuestClient(connection, timeout=0.05).stats(ID, deadline=soon())
    connection.close()
    connection.join(60)


class Patience:
    """A connection that answers at once, and remembers how long it might have taken."""

    def __init__(self) -> None:
        self.seconds: dict[str, float | None] = {}

    def call(
        self, _service: str, method: str, _request: Message, response_class: type[M], *, timeout: float | None
    ) -> M:
        self.seconds[method] = timeout
        answer = response_class()
        if isinstance(answer, pb.SetPolicyResponse):
            answer.policy_sha256 = bytes(32)
        return answer

    def close(self) -> None:
        pass


def test_loading_a_policy_and_making_a_file_system_may_take_longer_but_not_longer_than_the_caller_waits() -> None:
    patience = Patience()
    client = GuestClient(patience, timeout=30)
    client.stats(ID)
    client.mount_scratch_disk(ID, 4)
    client.mount_volume_disk("data", 5)
    client.set_policy(b"p")
    long = dict.fromkeys(("SetPolicy", "MountScratch", "MountVolume"), 120)
    assert patience.seconds == {"Stats": 30, "PutPolicy": 30, **long}
    client.mount_scratch_disk(ID, 4, deadline=soon(50))
    assert 0 < (patience.seconds["MountScratch"] or 0) <= 50


def test_closing_fails_a_wait_at_once(guest: FakeGuest, client: GuestClient) -> None:
    guest.stuck.add("WaitProcess")
    threading.Timer(0.05, client.close).start()
    with pytest.raises(Unavailable):
        client.wait_process(ID, "")


def test_text_from_the_guest_is_one_bounded_printable_line() -> None:
    assert clean_text("a\nb\x1b[31m\x00c", 100) == "a b [31m c"
    assert clean_text("x" * 50, 10) == "xxxxxxx..."
    assert "\n" not in str(guest_error("Stats", 7, "x\r\n" * 5000))
    assert len(str(guest_error("Stats", 99, "x" * 100_000))) <= 2000
    assert str(guest_error("Stats", 5, "")) == "the guest refused Stats"
