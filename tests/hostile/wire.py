# SPDX-License-Identifier: Apache-2.0
"""The enforcer and the policy engine as they are in the guest, behind a socket pair; kernel and crun are fakes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parma_guest.decisions import FrameworkEngine
from parma_guest.service import GuestService, StreamService
from parma_guest.tee import TeeProvider
from parma_wire import guest_pb2 as pb
from parma_wire.errors import ParmaError, from_code
from parma_wire.limits import DOCUMENT_CHUNK, MAX_SEND, POLICY_CHUNK
from tests.guest import vm_harness as vm
from tests.guest.fakes import Rig
from ttrpc import Client, Server, TtrpcError

SERVICE = "parma.guest.v1.Guest"
LAYERS = ("aa" * 32, "bb" * 32, "cc" * 32)
"""Root hashes of the layers that policies here may list, base first."""

SLEEP = ["/bin/sleep", "1000"]


class _LayerImage:
    """What `vm.container_object` wants of a layer."""

    def __init__(self, root_hash: str) -> None:
        self.root_hash = root_hash


def container(command: Sequence[str] = SLEEP, layers: Sequence[str] = LAYERS, **changes: object) -> dict[str, object]:
    """A container of a policy."""
    return vm.container_object([_LayerImage(layer) for layer in layers], command, **changes)  # type: ignore[misc]


class HostileHost:
    """A host with a connection to an enforcer of its own."""

    def __init__(self, directory: Path, tee: TeeProvider | None = None) -> None:
        self.rig = Rig(directory, FrameworkEngine, tee)
        self.server = Server(write_chunk=MAX_SEND)
        services = pb.DESCRIPTOR.services_by_name
        self.powered_off = threading.Event()
        guest = GuestService(self.rig.enforcer, self.rig.group, [("ready", 7)], self.powered_off.set)
        self.server.register(services["Guest"], guest)
        self.server.register(services["Streams"], StreamService(self.rig.group))
        self.client = self.connect()

    def dial(self) -> socket.socket:
        """A bare connection."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.server.serve_connection, args=(theirs,), daemon=True).start()
        return ours

    def connect(self) -> Client:
        """A client on a connection of its own."""
        return Client(self.dial(), write_chunk=MAX_SEND)

    def call(self, method: str, request: Any) -> Any:
        """One request; raises the class of `parma_wire.errors` that the code stands for."""
        try:
            return self.client.call(SERVICE, method, request, getattr(pb, f"{method}Response"), timeout=60)
        except TtrpcError as error:
            raise from_code(error.code, error.message) from error

    def answer(self, method: str, request: Any) -> ParmaError | None:
        """How it is refused; None when it is carried out."""
        try:
            self.call(method, request)
        except ParmaError as error:
            return error
        return None

    def set_policy(self, policy: bytes) -> None:
        """In pieces."""
        for offset in range(0, len(policy), POLICY_CHUNK):
            self.call("PutPolicy", pb.PutPolicyRequest(offset=offset, data=policy[offset : offset + POLICY_CHUNK]))
        self.call("SetPolicy", pb.SetPolicyRequest(size=len(policy)))

    def put_document(self, data: bytes) -> None:
        """In pieces."""
        for offset in range(0, len(data), DOCUMENT_CHUNK):
            self.call("PutDocument", pb.PutDocumentRequest(offset=offset, data=data[offset : offset + DOCUMENT_CHUNK]))

    def mount_layer(self, number: int, root_hash: str) -> str:
        """Its mount point."""
        target = f"/run/mounts/scsi/m{number}"
        request = pb.MountDeviceRequest(lun=number, target=target, device_hash=root_hash, data_blocks=8)
        self.call("MountDevice", request)
        return target

    def make_rootfs(self, name: str, layers: Sequence[str] = LAYERS) -> None:
        """Layers, scratch and overlay, as the policy wants them."""
        mounted = self.rig.kernel.mounted()
        targets = [f"/run/mounts/scsi/m{LAYERS.index(layer)}" for layer in layers]
        for layer, target in zip(layers, targets, strict=True):
            if target not in mounted:
                self.mount_layer(LAYERS.index(layer), layer)
        self.call("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20))
        self.call("MountOverlay", pb.MountOverlayRequest(container_id=name, layer_targets=targets[::-1]))

    def creation(self, name: str, args: Sequence[str] = SLEEP, **changes: Any) -> pb.CreateContainerRequest:
        """CreateContainer; keyword arguments of `vm.process` unless the message itself has the field."""
        request = pb.CreateContainerRequest(container_id=name)
        own = {key: changes.pop(key) for key in list(changes) if key in request.DESCRIPTOR.fields_by_name}
        request.MergeFrom(pb.CreateContainerRequest(process=vm.process(args, **changes), **own))
        return request

    @property
    def specs(self) -> dict[str, dict[str, Any]]:
        """What crun was given, by container."""
        return {str(name): spec for name, spec in self.rig.runtime.containers.items()}

    def close(self) -> None:
        """Everything ends."""
        self.client.close()
        self.server.close()


@contextmanager
def hostile_host(
    directory: Path, *containers: dict[str, object], tee: TeeProvider | None = None
) -> Iterator[HostileHost]:
    """With a policy of these containers; without any, no policy is set."""
    host = HostileHost(directory, tee)
    try:
        if containers:
            host.set_policy(vm.policy_text(*containers))
        yield host
    finally:
        host.close()
