# SPDX-License-Identifier: Apache-2.0
"""The enforcer's control connection: one method per request, each with a deadline.

The guest is as little trusted here as the host is there: text is bounded and stripped of control characters, numbers
are checked against what was asked, and nothing from the guest is ever used as a path or a format string.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message

from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError, from_code
from parma_wire.limits import DOCUMENT_CHUNK, POLICY_CHUNK
from ttrpc import TtrpcError

if TYPE_CHECKING:
    from parma_shim.host_tree import HostFile

SERVICE: Final = "parma.guest.v1.Guest"

REPORT_SIZE: Final = 1184
NONCE_SIZE: Final = 64
MAX_PROCESSES: Final = 32768
MAX_RECORDING: Final = 8 << 20
_MAX_PID: Final = 1 << 22
_MAX_TEXT: Final = 2000
_MAX_PHASES: Final = 32
_EXEC_ID: Final = re.compile(r"[A-Za-z0-9._-]{0,76}", re.ASCII)

_LONG: Final = 4
"""How many times as long as another request may take one in which the guest makes a file system, all of it encrypted,
or loads the code that decides, on a host that gives it little time."""

M = TypeVar("M", bound=Message)


class Caller(Protocol):
    """What is needed of ``ttrpc.Client``."""

    def call(
        self, service_name: str, method: str, request: Message, response_class: type[M], *, timeout: float | None
    ) -> M:
        """One unary call."""

    def close(self) -> None:
        """Close the connection; calls in flight fail."""


class Around(Protocol):
    """Sees each call: its name, and a function that makes it (``parma_shim.observe.calls``)."""

    def __call__(self, method: str, call: Callable[[], M], /) -> M: ...


def unobserved(_method: str, call: Callable[[], M], /) -> M:
    """Where nobody looks."""
    return call()


class BootPhase(NamedTuple):
    """When a part of the guest's start was over, in microseconds since its kernel started."""

    name: str
    uptime_us: int


class Greeting(NamedTuple):
    """Who answered."""

    version: str
    tee: str
    phases: tuple[BootPhase, ...]


class AcceptedPolicy(NamedTuple):
    """What the guest says of the policy that it has: SHA-256 (32 bytes), and whether endorsements are of use."""

    sha256: bytes
    wants_endorsements: bool


class GuestProcess(NamedTuple):
    """A process as the guest reports it; ``exec_id`` is empty for init and for processes nobody asked for."""

    pid: int
    exec_id: str
    init: bool


class GuestClient:
    """Typed calls on one connection. Safe for several threads; no lock is held while waiting."""

    def __init__(self, client: Caller, *, timeout: float, around: Around = unobserved) -> None:
        self._client: Final = client
        self._around: Final = around
        self._timeout: Final = timeout
        self._answered_at = 0.0

    def close(self) -> None:
        """Close the connection; calls in flight fail with Unavailable."""
        self._client.close()

    def hello(self, *, deadline: float | None = None) -> Greeting:
        """Version, TEE and boot phases."""
        answer = self._call("Hello", pb.HelloRequest(), pb.HelloResponse, deadline)
        if len(answer.phases) > _MAX_PHASES:
            raise Malformed("the guest reports too many boot phases")
        phases = tuple(BootPhase(clean_text(phase.name, 32), phase.uptime_us) for phase in answer.phases)
        return Greeting(clean_text(answer.version, 64), clean_text(answer.tee, 16), phases)

    def answers(self, within: float) -> bool:
        """Whether it answers anybody in so many seconds: one that is busy may be late for this question, too."""
        asked_at = time.monotonic()
        try:
            self.hello(deadline=asked_at + within)
        except ParmaError:
            return self._answered_at > asked_at
        return True

    def set_policy(self, policy: bytes, *, deadline: float | None = None) -> AcceptedPolicy:
        """Hand over the execution policy."""
        for offset, piece in _pieces(policy, POLICY_CHUNK):
            self._call("PutPolicy", pb.PutPolicyRequest(offset=offset, data=piece), pb.PutPolicyResponse, deadline)
        request = pb.SetPolicyRequest(size=len(policy))
        answer = self._call("SetPolicy", request, pb.SetPolicyResponse, deadline, times=_LONG)
        if len(answer.policy_sha256) != 32:
            raise Malformed("the guest's digest of the policy has the wrong size", expected="32 bytes")
        return AcceptedPolicy(answer.policy_sha256, answer.wants_endorsements)

    def put_endorsements(self, host_amd_cert: bytes, reference_info: bytes, *, deadline: float | None = None) -> None:
        """What containers pass on to relying parties: the host-amd-cert JSON and the image's endorsement, or b""."""
        request = pb.PutEndorsementsRequest(host_amd_cert=host_amd_cert, reference_info=reference_info)
        self._call("PutEndorsements", request, pb.PutEndorsementsResponse, deadline)

    def load_document(self, data: bytes, *, is_trust_list: bool, deadline: float | None = None) -> None:
        """Hand over a signed document: a fragment of the policy, or a transparency trust list."""
        for offset, piece in _pieces(data, DOCUMENT_CHUNK):
            self._call(
                "PutDocument", pb.PutDocumentRequest(offset=offset, data=piece), pb.PutDocumentResponse, deadline
            )
        if is_trust_list:
            self._call("LoadTrustList", pb.LoadTrustListRequest(size=len(data)), pb.LoadTrustListResponse, deadline)
        else:
            self._call("LoadFragment", pb.LoadFragmentRequest(size=len(data)), pb.LoadFragmentResponse, deadline)

    def evidence(self, nonce: bytes, *, deadline: float | None = None) -> bytes:
        """A report that answers 64 random bytes of the caller's; empty with tee = "none"."""
        request = pb.EvidenceRequest(nonce=nonce)
        report = self._call("Evidence", request, pb.EvidenceResponse, deadline).report
        if len(report) not in {0, REPORT_SIZE}:
            raise Malformed("the guest's report has the wrong size", expected=f"{REPORT_SIZE} bytes")
        return report

    def recording(self, *, deadline: float | None = None) -> tuple[bytes, int]:
        """What a permissive policy was asked so far, JSON Lines, and the number of steps that did not fit any more.

        Raises FailedPrecondition for any other policy.
        """
        data = bytearray()
        while True:
            request = pb.RecordingRequest(offset=len(data))
            answer = self._call("Recording", request, pb.RecordingResponse, deadline)
            if len(data) + len(answer.data) > min(answer.size, MAX_RECORDING):
                raise Malformed("the guest's recording is longer than it says", expected=f"at most {MAX_RECORDING}")
            data += answer.data
            if len(data) == answer.size:
                return bytes(data), answer.dropped
            if len(answer.data) < POLICY_CHUNK:  # a guest could go on like this for ever
                raise Malformed("a piece of the guest's recording is shorter than it could be")

    def configure_network(self, request: pb.ConfigureNetworkRequest, *, deadline: float | None = None) -> None:
        """Give the containers their network."""
        self._call("ConfigureNetwork", request, pb.ConfigureNetworkResponse, deadline)

    def provide_files(
        self, container_id: str, source: str, files: Iterable[HostFile], *, update: bool, deadline: float | None = None
    ) -> None:
        """Files for containers to mount from ``source``, below the sandbox's directory."""
        for file in files:
            owner = {"mode": file.mode, "uid": file.uid, "gid": file.gid}
            for offset, piece in [*_pieces(file.data, POLICY_CHUNK)] or [(0, b"")]:
                request = pb.PutFileRequest(name=file.path, offset=offset, data=piece, **owner)
                self._call("PutFile", request, pb.PutFileResponse, deadline)
        asked = pb.ProvideFilesRequest(container_id=container_id, source=source, update=update)
        self._call("ProvideFiles", asked, pb.ProvideFilesResponse, deadline)

    def mount_device(
        self, lun: int, target: str, device_hash: str, data_blocks: int, *, deadline: float | None = None
    ) -> None:
        """Verify and mount an image layer."""
        request = pb.MountDeviceRequest(lun=lun, target=target, device_hash=device_hash, data_blocks=data_blocks)
        self._call("MountDevice", request, pb.MountDeviceResponse, deadline)

    def unmount_device(self, target: str, *, deadline: float | None = None) -> None:
        """Undo :meth:`mount_device`."""
        self._call("UnmountDevice", pb.UnmountDeviceRequest(target=target), pb.UnmountDeviceResponse, deadline)

    def mount_scratch_disk(self, container_id: str, lun: int, *, deadline: float | None = None) -> None:
        """Make a container's writable space on a host disk, encrypted with a key of the guest's."""
        request = pb.MountScratchRequest(container_id=container_id, lun=lun)
        self._call("MountScratch", request, pb.MountScratchResponse, deadline, times=_LONG)

    def mount_scratch_memory(self, container_id: str, size: int, *, deadline: float | None = None) -> None:
        """Make a container's writable space in guest memory, of ``size`` bytes."""
        request = pb.MountScratchRequest(container_id=container_id, memory_bytes=size)
        self._call("MountScratch", request, pb.MountScratchResponse, deadline)

    def unmount_scratch(self, container_id: str, *, deadline: float | None = None) -> None:
        """Undo either."""
        request = pb.UnmountScratchRequest(container_id=container_id)
        self._call("UnmountScratch", request, pb.UnmountScratchResponse, deadline)

    def mount_overlay(self, request: pb.MountOverlayRequest, *, deadline: float | None = None) -> None:
        """Put a container's root file system together."""
        self._call("MountOverlay", request, pb.MountOverlayResponse, deadline)

    def unmount_overlay(self, container_id: str, *, deadline: float | None = None) -> None:
        """Undo :meth:`mount_overlay`."""
        request = pb.UnmountOverlayRequest(container_id=container_id)
        self._call("UnmountOverlay", request, pb.UnmountOverlayResponse, deadline)

    def create_sandbox(self, request: pb.CreateSandboxRequest, *, deadline: float | None = None) -> int:
        """Make what a pod's containers share; returns the id, in the guest, of the process that keeps it."""
        return _pid(self._call("CreateSandbox", request, pb.CreateSandboxResponse, deadline).pid)

    def stop_sandbox(self, *, deadline: float | None = None) -> None:
        """End that process."""
        self._call("StopSandbox", pb.StopSandboxRequest(), pb.StopSandboxResponse, deadline)

    def mount_volume_disk(self, name: str, lun: int, *, deadline: float | None = None) -> None:
        """Make an emptyDir on a host disk, encrypted with a key of the guest's."""
        request = pb.MountVolumeRequest(name=name, lun=lun)
        self._call("MountVolume", request, pb.MountVolumeResponse, deadline, times=_LONG)

    def mount_volume_memory(self, name: str, size: int, *, deadline: float | None = None) -> None:
        """Make an emptyDir in guest memory, of ``size`` bytes."""
        request = pb.MountVolumeRequest(name=name, memory_bytes=size)
        self._call("MountVolume", request, pb.MountVolumeResponse, deadline)

    def create_container(self, request: pb.CreateContainerRequest, *, deadline: float | None = None) -> int:
        """Create, do not start; returns the init process's id in the guest."""
        return _pid(self._call("CreateContainer", request, pb.CreateContainerResponse, deadline).pid)

    def start_container(self, container_id: str, *, deadline: float | None = None) -> None:
        """Start the init process."""
        request = pb.StartContainerRequest(container_id=container_id)
        self._call("StartContainer", request, pb.StartContainerResponse, deadline)

    def exec_process(
        self, container_id: str, exec_id: str, process: pb.Process, *, deadline: float | None = None
    ) -> int:
        """Start a further process; returns its id in the guest."""
        request = pb.ExecProcessRequest(container_id=container_id, exec_id=exec_id, process=process)
        return _pid(self._call("ExecProcess", request, pb.ExecProcessResponse, deadline).pid)

    def signal_process(
        self,
        container_id: str,
        exec_id: str,
        signal: int,
        *,
        all_processes: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Signal a process (``exec_id`` empty: init), or every process of the container."""
        request = pb.SignalProcessRequest(container_id=container_id, exec_id=exec_id, signal=signal, all=all_processes)
        self._call("SignalProcess", request, pb.SignalProcessResponse, deadline)

    def wait_process(self, container_id: str, exec_id: str) -> tuple[int, bool]:
        """Exit status (128 + signal for a killed process) and whether memory ran out.

        The only call without a deadline: it ends with the process, or with the connection.
        """
        request = pb.WaitProcessRequest(container_id=container_id, exec_id=exec_id)
        answer = self._invoke("WaitProcess", request, pb.WaitProcessResponse, None)
        if answer.exit_status > 255:
            raise Malformed("the guest reports an impossible exit status", expected="0 to 255")
        return answer.exit_status, answer.oom_killed

    def resize_pty(
        self, container_id: str, exec_id: str, width: int, height: int, *, deadline: float | None = None
    ) -> None:
        """Set a terminal's size."""
        request = pb.ResizePtyRequest(container_id=container_id, exec_id=exec_id, width=width, height=height)
        self._call("ResizePty", request, pb.ResizePtyResponse, deadline)

    def delete_process(self, container_id: str, exec_id: str, *, deadline: float | None = None) -> None:
        """Forget an exited further process."""
        request = pb.DeleteProcessRequest(container_id=container_id, exec_id=exec_id)
        self._call("DeleteProcess", request, pb.DeleteProcessResponse, deadline)

    def delete_container(self, container_id: str, *, deadline: float | None = None) -> None:
        """Forget a container that is not running."""
        request = pb.DeleteContainerRequest(container_id=container_id)
        self._call("DeleteContainer", request, pb.DeleteContainerResponse, deadline)

    def list_processes(self, container_id: str, *, deadline: float | None = None) -> list[GuestProcess]:
        """Every process of a container."""
        request = pb.ListProcessesRequest(container_id=container_id)
        answer = self._call("ListProcesses", request, pb.ListProcessesResponse, deadline)
        if len(answer.processes) > MAX_PROCESSES:
            raise Malformed("the guest reports too many processes", expected=f"at most {MAX_PROCESSES}")
        for entry in answer.processes:
            if not _EXEC_ID.fullmatch(entry.exec_id):
                raise Malformed("the guest reports an exec id that nobody can have chosen")
        return [GuestProcess(_pid(entry.pid), entry.exec_id, entry.init) for entry in answer.processes]

    def stats(self, container_id: str, *, deadline: float | None = None) -> pb.StatsResponse:
        """The container's resource use."""
        return self._call("Stats", pb.StatsRequest(container_id=container_id), pb.StatsResponse, deadline)

    def pause(self, container_id: str, *, deadline: float | None = None) -> None:
        """Freeze every process of a container."""
        request = pb.PauseContainerRequest(container_id=container_id)
        self._call("PauseContainer", request, pb.PauseContainerResponse, deadline)

    def resume(self, container_id: str, *, deadline: float | None = None) -> None:
        """Undo :meth:`pause`."""
        request = pb.ResumeContainerRequest(container_id=container_id)
        self._call("ResumeContainer", request, pb.ResumeContainerResponse, deadline)

    def update_resources(self, container_id: str, resources: pb.Resources, *, deadline: float | None = None) -> None:
        """Change a container's limits."""
        request = pb.UpdateResourcesRequest(container_id=container_id, resources=resources)
        self._call("UpdateResources", request, pb.UpdateResourcesResponse, deadline)

    def power_off(self, *, deadline: float | None = None) -> None:
        """End the VM in an orderly way; the answer comes before the end."""
        self._call("PowerOff", pb.PowerOffRequest(), pb.PowerOffResponse, deadline)

    def _call(self, method: str, request: Message, response: type[M], deadline: float | None, *, times: int = 1) -> M:
        """One call within so many times the configured time, and within ``deadline`` if that is sooner."""
        timeout = times * self._timeout
        if deadline is not None:
            timeout = min(timeout, deadline - time.monotonic())
        if timeout <= 0:
            raise DeadlineExceeded(f"no time left for {method}")
        return self._invoke(method, request, response, timeout)

    def _invoke(self, method: str, request: Message, response: type[M], timeout: float | None) -> M:
        def call() -> M:
            try:
                answer = self._client.call(SERVICE, method, request, response, timeout=timeout)
            except TtrpcError as error:
                raise guest_error(method, error.code, error.message) from error
            self._answered_at = time.monotonic()
            return answer

        return self._around(method, call)


def guest_error(method: str, code: int, message: str) -> ParmaError:
    """The error class for what the guest, or the connection to it, said."""
    text = clean_text(message, _MAX_TEXT)
    if code == DeadlineExceeded.code:
        return DeadlineExceeded(f"the guest did not answer {method} in time")
    return from_code(code, text or f"the guest refused {method}")


def clean_text(text: str, maximum: int) -> str:
    """Text from the guest for a person's terminal: one line, no control characters, bounded."""
    cut = text if len(text) <= maximum else text[: maximum - 3] + "..."
    return "".join(character if character.isprintable() else " " for character in cut)


def _pieces(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, len(data), size):
        yield offset, data[offset : offset + size]


def _pid(value: int) -> int:
    if not 0 < value <= _MAX_PID:
        raise Malformed("the guest reports an impossible process id", expected=f"1 to {_MAX_PID}")
    return value
