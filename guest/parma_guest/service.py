# SPDX-License-Identifier: Apache-2.0
"""The ttrpc services, as thin as they can be: message -> typed request -> group -> message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from parma_guest import points, requests, streams
from parma_guest.documents import Documents
from parma_guest.enforcer import Enforcer
from parma_guest.group import Group
from parma_guest.values import ContainerId, ExecId, LayerTarget
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied

VERSION: Final = "0.1.0"

Phases = Iterable[tuple[str, int]]
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class CallContext(Protocol):
    """What is needed of `ttrpc.Context`."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls back when the caller is gone."""

    def after_reply(self, callback: Callable[[], None]) -> None:
        """Calls back when the answer is on its way."""

    def remaining(self) -> float | None:
        """For how many seconds more the caller waits; None: as long as it takes."""


def guarded(handler: _Handler) -> _Handler:
    """For every unary request: refuses it when the table has no row for it, and refuses unknown fields.

    Without a row the module cannot even be imported, and the VM ends at boot.
    """
    method = handler.__name__
    if points.row(method) is None:
        raise TypeError(f"{method} has no enforcement point")

    def checked(self: object, request: Message, context: CallContext) -> Message:
        if points.row(method) is None:
            raise Denied(f"{method} has no enforcement point")
        requests.refuse_unknown_fields(request)
        answer: Message = handler(self, request, context)
        return answer

    checked.__name__ = method
    checked.__doc__ = handler.__doc__
    return checked  # type: ignore[return-value]


class GuestService:
    """``parma.guest.v1.Guest``."""

    def __init__(self, enforcer: Enforcer, group: Group, phases: Phases, power_off: Callable[[], None]) -> None:
        self._enforcer = enforcer
        self._group = group
        self._documents = Documents(enforcer)
        self._phases = phases
        self._power_off = power_off

    @guarded
    def Hello(self, _request: pb.HelloRequest, _context: CallContext) -> pb.HelloResponse:  # noqa: N802
        """Who is there."""
        phases = [pb.BootPhase(name=name, uptime_us=uptime) for name, uptime in self._phases]
        return pb.HelloResponse(version=VERSION, tee=self._enforcer.tee, phases=phases)

    @guarded
    def PutPolicy(self, request: pb.PutPolicyRequest, _context: CallContext) -> pb.PutPolicyResponse:  # noqa: N802
        """A piece of the policy."""
        self._enforcer.put_policy(*requests.put_policy(request))
        return pb.PutPolicyResponse()

    @guarded
    def SetPolicy(self, request: pb.SetPolicyRequest, _context: CallContext) -> pb.SetPolicyResponse:  # noqa: N802
        """The policy is complete."""
        digest = self._enforcer.set_policy(request.size)
        return pb.SetPolicyResponse(policy_sha256=digest, wants_endorsements=self._enforcer.wants_endorsements)

    @guarded
    def PutDocument(self, request: pb.PutDocumentRequest, _context: CallContext) -> pb.PutDocumentResponse:  # noqa: N802
        """A piece of a signed document."""
        self._documents.put(*requests.put_document(request))
        return pb.PutDocumentResponse()

    @guarded
    def LoadFragment(self, request: pb.LoadFragmentRequest, _context: CallContext) -> pb.LoadFragmentResponse:  # noqa: N802
        """It is complete, and a fragment of the policy."""
        self._documents.load_fragment(request.size)
        return pb.LoadFragmentResponse()

    @guarded
    def LoadTrustList(self, request: pb.LoadTrustListRequest, _context: CallContext) -> pb.LoadTrustListResponse:  # noqa: N802
        """It is complete, and a list of transparency ledgers."""
        self._documents.load_trust_list(request.size)
        return pb.LoadTrustListResponse()

    @guarded
    def Evidence(self, request: pb.EvidenceRequest, _context: CallContext) -> pb.EvidenceResponse:  # noqa: N802
        """A report."""
        return pb.EvidenceResponse(report=self._enforcer.evidence(requests.nonce(request)))

    @guarded
    def Recording(self, request: pb.RecordingRequest, _context: CallContext) -> pb.RecordingResponse:  # noqa: N802
        """A piece of what a permissive policy was asked."""
        data, size, dropped = self._enforcer.recording(request.offset)
        return pb.RecordingResponse(data=data, size=size, dropped=dropped)

    @guarded
    def PutEndorsements(self, request: pb.PutEndorsementsRequest, _context: CallContext) -> pb.PutEndorsementsResponse:  # noqa: N802
        """What containers pass on to their relying parties."""
        from parma_guest.attest import endorsements  # few policies want it

        self._group.put_endorsements(endorsements.parse(request.host_amd_cert, request.reference_info))
        return pb.PutEndorsementsResponse()

    @guarded
    def ConfigureNetwork(  # noqa: N802
        self, request: pb.ConfigureNetworkRequest, _context: CallContext
    ) -> pb.ConfigureNetworkResponse:
        """A network for the containers."""
        from parma_guest import network_requests  # many VMs have none

        self._group.configure_network(network_requests.configure_network(request))
        return pb.ConfigureNetworkResponse()

    @guarded
    def PutFile(self, request: pb.PutFileRequest, _context: CallContext) -> pb.PutFileResponse:  # noqa: N802
        """A piece of a file."""
        self._group.put_file(request)
        return pb.PutFileResponse()

    @guarded
    def ProvideFiles(self, request: pb.ProvideFilesRequest, _context: CallContext) -> pb.ProvideFilesResponse:  # noqa: N802
        """They are complete, and for this."""
        self._group.provide_files(request)
        return pb.ProvideFilesResponse()

    @guarded
    def MountDevice(self, request: pb.MountDeviceRequest, _context: CallContext) -> pb.MountDeviceResponse:  # noqa: N802
        """A layer."""
        self._group.storage.mount_device(requests.mount_device(request))
        return pb.MountDeviceResponse()

    @guarded
    def UnmountDevice(  # noqa: N802
        self, request: pb.UnmountDeviceRequest, _context: CallContext
    ) -> pb.UnmountDeviceResponse:
        """A layer less."""
        self._group.storage.unmount_device(LayerTarget(request.target))
        return pb.UnmountDeviceResponse()

    @guarded
    def MountScratch(self, request: pb.MountScratchRequest, _context: CallContext) -> pb.MountScratchResponse:  # noqa: N802
        """Writable space."""
        self._group.storage.mount_scratch(requests.mount_scratch(request))
        return pb.MountScratchResponse()

    @guarded
    def UnmountScratch(  # noqa: N802
        self, request: pb.UnmountScratchRequest, _context: CallContext
    ) -> pb.UnmountScratchResponse:
        """Its end."""
        self._group.storage.unmount_scratch(ContainerId(request.container_id))
        return pb.UnmountScratchResponse()

    @guarded
    def MountOverlay(self, request: pb.MountOverlayRequest, _context: CallContext) -> pb.MountOverlayResponse:  # noqa: N802
        """A root file system."""
        self._group.storage.mount_overlay(requests.mount_overlay(request))
        return pb.MountOverlayResponse()

    @guarded
    def UnmountOverlay(  # noqa: N802
        self, request: pb.UnmountOverlayRequest, _context: CallContext
    ) -> pb.UnmountOverlayResponse:
        """Its end."""
        self._group.storage.unmount_overlay(ContainerId(request.container_id))
        return pb.UnmountOverlayResponse()

    @guarded
    def CreateSandbox(self, request: pb.CreateSandboxRequest, _context: CallContext) -> pb.CreateSandboxResponse:  # noqa: N802
        """A pod without containers."""
        return pb.CreateSandboxResponse(pid=self._group.create_sandbox(requests.create_sandbox(request)))

    @guarded
    def StopSandbox(self, _request: pb.StopSandboxRequest, _context: CallContext) -> pb.StopSandboxResponse:  # noqa: N802
        """The pod's end."""
        self._group.stop_sandbox()
        return pb.StopSandboxResponse()

    @guarded
    def MountVolume(self, request: pb.MountVolumeRequest, _context: CallContext) -> pb.MountVolumeResponse:  # noqa: N802
        """An emptyDir."""
        self._group.mount_volume(requests.mount_volume(request))
        return pb.MountVolumeResponse()

    @guarded
    def CreateContainer(  # noqa: N802
        self, request: pb.CreateContainerRequest, _context: CallContext
    ) -> pb.CreateContainerResponse:
        """A container, not started."""
        return pb.CreateContainerResponse(pid=self._group.create(requests.create_container(request)))

    @guarded
    def StartContainer(  # noqa: N802
        self, request: pb.StartContainerRequest, _context: CallContext
    ) -> pb.StartContainerResponse:
        """Now it runs."""
        self._group.start(ContainerId(request.container_id))
        return pb.StartContainerResponse()

    @guarded
    def ExecProcess(self, request: pb.ExecProcessRequest, context: CallContext) -> pb.ExecProcessResponse:  # noqa: N802
        """One more process."""
        return pb.ExecProcessResponse(pid=self._group.execute(requests.exec_process(request), context.remaining))

    @guarded
    def SignalProcess(self, request: pb.SignalProcessRequest, _context: CallContext) -> pb.SignalProcessResponse:  # noqa: N802
        """A signal."""
        self._group.signal(requests.signal_process(request))
        return pb.SignalProcessResponse()

    @guarded
    def WaitProcess(self, request: pb.WaitProcessRequest, context: CallContext) -> pb.WaitProcessResponse:  # noqa: N802
        """The exit status, once there is one."""
        container, exec_id = ContainerId(request.container_id), ExecId(request.exec_id)
        status = self._group.wait(container, exec_id, context.on_cancel)
        return pb.WaitProcessResponse(exit_status=status.code, oom_killed=status.oom_killed)

    @guarded
    def ResizePty(self, request: pb.ResizePtyRequest, _context: CallContext) -> pb.ResizePtyResponse:  # noqa: N802
        """A terminal's size."""
        size = requests.console_size(request.width, request.height)
        self._group.resize(ContainerId(request.container_id), ExecId(request.exec_id), *size)
        return pb.ResizePtyResponse()

    @guarded
    def DeleteProcess(self, request: pb.DeleteProcessRequest, _context: CallContext) -> pb.DeleteProcessResponse:  # noqa: N802
        """Forgets an exec."""
        self._group.delete_process(ContainerId(request.container_id), ExecId(request.exec_id))
        return pb.DeleteProcessResponse()

    @guarded
    def DeleteContainer(  # noqa: N802
        self, request: pb.DeleteContainerRequest, _context: CallContext
    ) -> pb.DeleteContainerResponse:
        """Forgets a container."""
        self._group.delete(ContainerId(request.container_id))
        return pb.DeleteContainerResponse()

    @guarded
    def ListProcesses(self, request: pb.ListProcessesRequest, _context: CallContext) -> pb.ListProcessesResponse:  # noqa: N802
        """Who runs."""
        entry = pb.ListProcessesResponse.Entry
        rows = self._group.processes(ContainerId(request.container_id))
        return pb.ListProcessesResponse(
            processes=[entry(pid=pid, exec_id=exec_id, init=init) for pid, exec_id, init in rows]
        )

    @guarded
    def Stats(self, request: pb.StatsRequest, _context: CallContext) -> pb.StatsResponse:  # noqa: N802
        """What it uses."""
        return pb.StatsResponse(**self._group.stats(ContainerId(request.container_id))._asdict())

    @guarded
    def PauseContainer(  # noqa: N802
        self, request: pb.PauseContainerRequest, _context: CallContext
    ) -> pb.PauseContainerResponse:
        """Stops all its processes."""
        self._group.pause(ContainerId(request.container_id))
        return pb.PauseContainerResponse()

    @guarded
    def ResumeContainer(  # noqa: N802
        self, request: pb.ResumeContainerRequest, _context: CallContext
    ) -> pb.ResumeContainerResponse:
        """Continues them."""
        self._group.resume(ContainerId(request.container_id))
        return pb.ResumeContainerResponse()

    @guarded
    def UpdateResources(  # noqa: N802
        self, request: pb.UpdateResourcesRequest, _context: CallContext
    ) -> pb.UpdateResourcesResponse:
        """Other limits."""
        self._group.update(ContainerId(request.container_id), requests.resources(request.resources))
        return pb.UpdateResourcesResponse()

    @guarded
    def PowerOff(self, _request: pb.PowerOffRequest, context: CallContext) -> pb.PowerOffResponse:  # noqa: N802
        """The VM's end, once this is answered."""
        context.after_reply(self._power_off)
        return pb.PowerOffResponse()


_Frame = TypeVar("_Frame", bound=Message)


class _Frames(Protocol[_Frame]):
    def recv(self) -> _Frame | None: ...
    def send(self, frame: _Frame, /) -> None: ...


class _KnownFields(Generic[_Frame]):
    """A stream whose incoming frames may have no unknown fields."""

    def __init__(self, stream: _Frames[_Frame]) -> None:
        self._stream = stream
        self.send = stream.send

    def recv(self) -> _Frame | None:
        """See `streams.FrameStream`."""
        frame = self._stream.recv()
        if frame is not None:
            requests.refuse_unknown_fields(frame)
        return frame


class StreamService:
    """``parma.guest.v1.Streams``."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def Stream(self, stream: streams.FrameStream, context: CallContext) -> None:  # noqa: N802
        """stdin, stdout or stderr of one process."""
        if points.row("Stream") is None:
            raise Denied("Stream has no enforcement point")
        streams.serve(_KnownFields(stream), self._group.find_for_stream, context.on_cancel)

    def Forward(self, stream: _Frames[pb.ForwardFrame], _context: CallContext) -> None:  # noqa: N802
        """A connection to a port on the containers' loopback."""
        if points.row("Forward") is None:
            raise Denied("Forward has no enforcement point")
        self._group.forwarder.serve(_KnownFields(stream))
