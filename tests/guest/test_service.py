# SPDX-License-Identifier: Apache-2.0
"""What each request of the host makes the group do, and what is told about it: no more than the answer has."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from parma_guest import points, service
from parma_guest.enforcer import Enforcer
from parma_guest.group import Group
from parma_guest.points import Kind
from parma_guest.service import VERSION, GuestService, StreamService, guarded
from parma_guest.values import Resources
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, Malformed
from tests.guest.rpcs import HONEST, METHODS

ROOT = Path(__file__).resolve().parents[2]
ID = "ab" * 32
TARGET = "/run/mounts/scsi/m3"


class Status:
    """How a process ended."""

    code = 137
    oom_killed = True


class Usage:
    """What a container uses."""

    def _asdict(self) -> dict[str, int]:
        return {"memory_usage": 5, "pids_current": 3}


class FakeEnforcer:
    """Answers; remembers what it was told."""

    tee = "emulated"
    wants_endorsements = True

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def put_policy(self, offset: int, data: bytes) -> None:
        self.calls.append(("put_policy", offset, data))

    def set_policy(self, size: int) -> bytes:
        self.calls.append(("set_policy", size))
        return b"digest"

    def evidence(self, nonce: bytes) -> bytes:
        return b"report over " + nonce

    def recording(self, offset: int) -> tuple[bytes, int, int]:
        return f"from {offset}".encode(), 99, 7


class FakeGroup:
    """Remembers every call. ``storage`` and ``forwarder`` are itself: no two of their names are the same."""

    ANSWERS: dict[str, object] = {  # noqa: RUF012
        "create": 11,
        "create_sandbox": 12,
        "execute": 13,
        "wait": Status(),
        "processes": [(5, "", True), (6, "shell", False)],
        "stats": Usage(),
    }

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    @property
    def storage(self) -> FakeGroup:
        return self

    @property
    def forwarder(self) -> FakeGroup:
        return self

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self.calls.append((name, *arguments))
            return self.ANSWERS.get(name)

        return call


class Context:
    """A call of a host that stays."""

    def __init__(self) -> None:
        self.afterwards: list[Callable[[], None]] = []

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Never."""

    def after_reply(self, callback: Callable[[], None]) -> None:
        self.afterwards.append(callback)

    def remaining(self) -> float | None:
        return 4.5


class Served:
    """The service over fakes."""

    def __init__(self) -> None:
        self.enforcer = FakeEnforcer()
        self.group = FakeGroup()
        self.powered_off = 0
        self.context = Context()
        self.service = GuestService(
            cast("Enforcer", self.enforcer), cast("Group", self.group), [("ready", 7)], self._power_off
        )

    def _power_off(self) -> None:
        self.powered_off += 1

    def ask(self, method: str, request: Any) -> Any:
        return getattr(self.service, method)(request, self.context)


@pytest.fixture
def served() -> Served:
    return Served()


SIMPLE: dict[str, tuple[Any, tuple[object, ...]]] = {
    "UnmountDevice": (pb.UnmountDeviceRequest(target=TARGET), ("unmount_device", TARGET)),
    "MountDevice": (
        pb.MountDeviceRequest(lun=1, target=TARGET, device_hash=ID, data_blocks=2),
        ("mount_device", (1, TARGET, ID, 2)),
    ),
    "MountScratch": (pb.MountScratchRequest(container_id=ID, lun=4), ("mount_scratch", (ID, 4, None))),
    "UnmountScratch": (pb.UnmountScratchRequest(container_id=ID), ("unmount_scratch", ID)),
    "MountOverlay": (
        pb.MountOverlayRequest(container_id=ID, layer_targets=[TARGET]),
        ("mount_overlay", (ID, (TARGET,), None)),
    ),
    "UnmountOverlay": (pb.UnmountOverlayRequest(container_id=ID), ("unmount_overlay", ID)),
    "StopSandbox": (pb.StopSandboxRequest(), ("stop_sandbox",)),
    "MountVolume": (pb.MountVolumeRequest(name="cache", lun=4), ("mount_volume", ("cache", 4, None))),
    "StartContainer": (pb.StartContainerRequest(container_id=ID), ("start", ID)),
    "SignalProcess": (
        pb.SignalProcessRequest(container_id=ID, exec_id="e", signal=9),
        ("signal", (ID, "e", 9, False)),
    ),
    "ResizePty": (
        pb.ResizePtyRequest(container_id=ID, exec_id="e", width=80, height=25),
        ("resize", ID, "e", 80, 25),
    ),
    "DeleteProcess": (pb.DeleteProcessRequest(container_id=ID, exec_id="e"), ("delete_process", ID, "e")),
    "DeleteContainer": (pb.DeleteContainerRequest(container_id=ID), ("delete", ID)),
    "PauseContainer": (pb.PauseContainerRequest(container_id=ID), ("pause", ID)),
    "ResumeContainer": (pb.ResumeContainerRequest(container_id=ID), ("resume", ID)),
    "UpdateResources": (
        pb.UpdateResourcesRequest(container_id=ID, resources=pb.Resources(pids_limit=5)),
        ("update", ID, Resources(pids_limit=5)),
    ),
}


@pytest.mark.parametrize("method", SIMPLE)
def test_what_is_done_is_what_was_asked_and_the_answer_is_empty(served: Served, method: str) -> None:
    request, call = SIMPLE[method]
    assert served.ask(method, request) == getattr(pb, f"{method}Response")()
    assert served.group.calls == [call]


def test_new_processes_are_told_by_their_number(served: Served) -> None:
    process = pb.Process(args=["/x"])
    created = served.ask("CreateContainer", pb.CreateContainerRequest(container_id=ID, process=process))
    sandbox = served.ask("CreateSandbox", pb.CreateSandboxRequest(sandbox_id=ID))
    executed = served.ask("ExecProcess", pb.ExecProcessRequest(container_id=ID, exec_id="e", process=process))
    assert (created.pid, sandbox.pid, executed.pid) == (11, 12, 13)
    assert [name for name, *_ in served.group.calls] == ["create", "create_sandbox", "execute"]
    assert served.group.calls[-1][-1] == served.context.remaining, "nothing runs that nobody waits for"


def test_what_is_asked_of_a_container_is_told(served: Served) -> None:
    ended = served.ask("WaitProcess", pb.WaitProcessRequest(container_id=ID, exec_id="e"))
    assert ended == pb.WaitProcessResponse(exit_status=137, oom_killed=True)
    assert served.group.calls[0][:3] == ("wait", ID, "e")
    listed = served.ask("ListProcesses", pb.ListProcessesRequest(container_id=ID))
    assert [(entry.pid, entry.exec_id, entry.init) for entry in listed.processes] == [
        (5, "", True),
        (6, "shell", False),
    ]
    used = served.ask("Stats", pb.StatsRequest(container_id=ID))
    assert used == pb.StatsResponse(memory_usage=5, pids_current=3)


def test_what_the_enforcer_knows_is_told(served: Served) -> None:
    hello = served.ask("Hello", pb.HelloRequest())
    assert (hello.version, hello.tee) == (VERSION, "emulated")
    assert [(phase.name, phase.uptime_us) for phase in hello.phases] == [("ready", 7)]
    assert served.ask("PutPolicy", pb.PutPolicyRequest(offset=2, data=b"xy")) == pb.PutPolicyResponse()
    assert served.ask("SetPolicy", pb.SetPolicyRequest(size=4)) == pb.SetPolicyResponse(
        policy_sha256=b"digest", wants_endorsements=True
    )
    assert served.enforcer.calls == [("put_policy", 2, b"xy"), ("set_policy", 4)]
    assert served.ask("Evidence", pb.EvidenceRequest(nonce=b"n" * 64)).report == b"report over " + b"n" * 64
    assert served.ask("Recording", pb.RecordingRequest(offset=3)) == pb.RecordingResponse(
        data=b"from 3", size=99, dropped=7
    )


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_the_power_goes_off_after_the_answer_and_not_before(served: Served) -> None:
    assert served.ask("PowerOff", pb.PowerOffRequest()) == pb.PowerOffResponse()
    assert served.powered_off == 0
    for callback in served.context.afterwards:
        callback()
    assert served.powered_off == 1


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_done_for_a_request_with_a_field_that_is_not_known(served: Served, method: str) -> None:
    honest = HONEST[method](ID).SerializeToString()
    request = getattr(pb, f"{method}Request").FromString(honest + b"\xf2\x07\x01x")
    with pytest.raises(Malformed, match="does not know"):
        served.ask(method, request)
    assert served.group.calls == []
    assert served.enforcer.calls == []
    assert served.context.afterwards == []


def test_the_guard_keeps_the_name_and_the_text_of_what_it_guards() -> None:
    assert GuestService.MountDevice.__name__ == "MountDevice"
    assert GuestService.MountDevice.__doc__ == "A layer."
    with pytest.raises(TypeError, match="Unlisted has no enforcement point"):

        @guarded
        def Unlisted(_self: object, _request: object, _context: object) -> None:  # noqa: N802
            """No row of the table names it."""


class Frames:
    """A stream with one incoming frame; it must not be answered."""

    def __init__(self, frame: pb.StreamFrame | None) -> None:
        self._frame = frame
        self.sent: list[pb.StreamFrame] = []

    def recv(self) -> pb.StreamFrame | None:
        return self._frame

    def send(self, frame: pb.StreamFrame) -> None:
        self.sent.append(frame)


class Forwarded:
    """A stream of a forwarded port with one incoming frame."""

    def __init__(self, frame: pb.ForwardFrame) -> None:
        self._frame = frame

    def recv(self) -> pb.ForwardFrame | None:
        return self._frame

    def send(self, frame: pb.ForwardFrame) -> None:
        """It is not answered."""


def test_a_stream_needs_its_row_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "TABLE", {name: row for name, row in points.TABLE.items() if name != "Stream"})
    frames = Frames(pb.StreamFrame(open=pb.StreamOpen(container_id=ID, kind=pb.STDOUT)))
    with pytest.raises(Denied, match="Stream has no enforcement point"):
        StreamService(cast("Group", served.group)).Stream(frames, served.context)
    assert served.group.calls == []


def test_a_frame_with_a_field_that_is_not_known_ends_the_stream(served: Served) -> None:
    frames = Frames(pb.StreamFrame.FromString(b"\xf2\x07\x01x"))
    with pytest.raises(Malformed, match="does not know"):
        StreamService(cast("Group", served.group)).Stream(frames, served.context)
    assert served.group.calls == []


POINTS = {
    "LoadFragment": ("load_fragment",),
    "LoadTrustList": ("load_transparency_trust_list",),
    "Recording": ("runtime_logging",),
    "ConfigureNetwork": ("configure_network",),
    "ProvideFiles": ("provide_files",),
    "MountDevice": ("mount_device",),
    "UnmountDevice": ("unmount_device",),
    "MountScratch": ("rw_mount_device", "scratch_mount"),
    "UnmountScratch": ("scratch_unmount", "rw_unmount_device"),
    "MountOverlay": ("mount_overlay",),
    "UnmountOverlay": ("unmount_overlay",),
    "MountVolume": ("rw_mount_device", "scratch_mount"),
    "CreateContainer": ("create_container",),
    "ExecProcess": ("exec_in_container",),
    "SignalProcess": ("signal_container_process",),
    "DeleteContainer": ("shutdown_container",),
    "ListProcesses": ("get_properties",),
    "Stats": ("get_properties",),
    "Forward": ("forward_port",),
}


def test_the_points_before_each_request_are_those_that_were_reviewed() -> None:
    """Written down a second time: whoever changes the table changes what a policy means."""
    assert {name: row.points for name, row in points.TABLE.items() if row.points} == POINTS


def test_only_the_requests_before_a_policy_and_the_end_of_the_vm_need_none() -> None:
    kinds = {name: row.kind for name, row in points.TABLE.items()}
    assert {name for name, kind in kinds.items() if kind is Kind.BOOTSTRAP} == {"Hello", "PutPolicy", "SetPolicy"}
    assert {name for name, kind in kinds.items() if kind is Kind.STOP} == {"PowerOff"}


def test_a_forwarded_port_needs_its_row_and_has_known_fields_only(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarding = StreamService(cast("Group", served.group))
    unknown = Forwarded(pb.ForwardFrame.FromString(b"\xf2\x07\x01x"))
    forwarding.Forward(unknown, served.context)
    ((name, stream),) = served.group.calls
    assert name == "serve"
    with pytest.raises(Malformed, match="does not know"):
        cast("Forwarded", stream).recv()
    monkeypatch.setattr(points, "TABLE", {name: row for name, row in points.TABLE.items() if name != "Forward"})
    with pytest.raises(Denied, match="Forward has no enforcement point"):
        forwarding.Forward(unknown, served.context)
    assert len(served.group.calls) == 1


def test_the_frames_of_a_stream_pass_in_both_directions_and_so_does_its_end() -> None:
    frame = pb.StreamFrame(data=b"x")
    frames = Frames(frame)
    stream = service._KnownFields(frames)
    assert stream.recv() is frame
    stream.send(frame)
    assert frames.sent == [frame]
    assert service._KnownFields(Frames(None)).recv() is None
