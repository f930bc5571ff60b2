# SPDX-License-Identifier: Apache-2.0
"""A container group over a made-up VM and a made-up guest."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import ttrpc
from parma_shim.config import Config
from parma_shim.group import ContainerGroup
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.image import record_verified
from parma_shim.vm.layers import Layer
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.session import Session
from parma_wire.errors import ParmaError, Unavailable
from tests.vm.fake_guest import FakeGuest
from tests.vm.support import spec, write_image

POLICY = b"package policy\n"
CREATED = ["MountDevice", "MountDevice", "MountScratch", "MountOverlay", "CreateContainer"]


class FakeMachine:
    """A VM that only counts what is attached."""

    def __init__(self, directory: Path, guest: FakeGuest) -> None:
        self.spec = spec(directory)
        self.pid = 4711
        self.disks: dict[int, bool] = {}
        self.ended = threading.Event()
        self.destroyed = False
        self._guest = guest
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[int | None], None]] = []

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def attach_descriptor(self, fd: int, *, readonly: bool, deadline: float) -> int:
        assert (fd, deadline > time.monotonic()) != (-1, False)
        lun = next(number for number in range(300) if number not in self.disks)
        self.disks[lun] = readonly
        return lun

    def detach_disk(self, lun: int, *, deadline: float) -> None:
        assert deadline > time.monotonic()
        del self.disks[lun]

    def connect(self, port: int, *, deadline: float) -> socket.socket:
        assert (port, deadline > 0) == (4050, True)
        return self._guest.connect()

    def on_exit(self, callback: Callable[[int | None], None]) -> None:
        with self._lock:
            if self.alive:
                self._callbacks.append(callback)
                return
        callback(-9)

    def wait(self, timeout: float) -> bool:
        return self.ended.wait(min(timeout, 0.05))

    def kill(self) -> None:
        with self._lock:
            if not self.alive:
                return
            self.ended.set()
        for callback in self._callbacks:
            callback(-9)

    def destroy(self) -> None:
        self.kill()
        self.destroyed = True

    def last_words(self) -> str:
        return ""


class FakeLayers:
    """Two layers that are ready, or a failure."""

    def __init__(self, ready: threading.Event, error: ParmaError | None = None) -> None:
        self.error = error
        self.closed = False
        self.ready = ready

    def layers(self, *, deadline: float) -> list[Layer]:
        assert deadline > 0
        assert self.ready.wait(30)
        if self.error is not None:
            raise self.error
        return [Layer("aa" * 32, 10, 0), Layer("bb" * 32, 20, 0)]

    def close(self) -> None:
        self.closed = True


class Notes(list[str]):
    """Lines of a log."""

    def __call__(self, message: str, **_fields: object) -> None:
        self.append(message)

    warning = __call__


class World:
    """A group and everything around it."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        image = write_image(directory / "image")
        record_verified(list(image.files), directory / "data/verified-images")
        self.guest = FakeGuest()
        self.machines: list[FakeMachine] = []
        self.sources: list[FakeLayers] = []
        self.layers_ready = threading.Event()
        self.layers_ready.set()
        self.layer_error: ParmaError | None = None
        self.boot_error: ParmaError | None = None
        self.log = Notes()
        self.exits: list[int | None] = []
        self.directory = directory
        config = Config(
            tee="emulated",
            image_dir=directory / "image",
            data_dir=directory / "data",
            state_dir=directory / "state",
            scratch_mib=16,
            call_timeout=20.0,
            policy_dirs=(directory,),
        )._replace(**changes)
        self.group = ContainerGroup(
            config,
            group_id="c1",
            namespace="default",
            directory=directory / "state/vm",
            grpc_address="",  # else a helper tries for a minute to tell a containerd that is not there
            log=self.log,
            boot_session=self._boot,
            start_layers=self._start_layers,
        )
        self.group.on_vm_exit(self.exits.append)

    def _boot(self, _launch: object, policy: bytes, *, on_machine: Any, call_timeout: float, **_rest: Any) -> Session:
        machine = FakeMachine(self.directory, self.guest)
        self.machines.append(machine)
        real = cast("VirtualMachine", machine)
        on_machine(real)
        if self.boot_error is not None or not machine.alive:
            machine.destroy()
            raise self.boot_error or Unavailable("the VM ended while starting")
        session = Session(real, ttrpc.Client(self.guest.connect()), call_timeout=call_timeout)
        self.policy = policy
        return session

    def _start_layers(self, *_arguments: Any, on_failure: Callable[[], None], **_rest: Any) -> FakeLayers:
        source = FakeLayers(self.layers_ready, self.layer_error)
        self.sources.append(source)
        if self.layer_error is not None:
            on_failure()
        return source

    def create(
        self,
        name: str = "c1",
        *,
        policy: bytes | None = POLICY,
        fragments: Sequence[object] = (),
        mounts: Sequence[object] = (),
        deadline: float | None = None,
    ) -> None:
        annotations = {} if policy is None else {"io.parma.policy": base64.b64encode(policy).decode()}
        if fragments:
            annotations["io.parma.fragments"] = json.dumps(fragments)
        oci = {"annotations": annotations, "process": {"args": ["/bin/true"], "cwd": "/"}, "mounts": list(mounts)}
        guest_id = name.encode().hex().rjust(64, "0")
        self.group.create_container(ContainerSpec(name, guest_id, self.directory, oci, False, False), deadline=deadline)

    @property
    def machine(self) -> FakeMachine:
        return self.machines[-1]

    def close(self) -> None:
        self.guest.released.set()
        self.guest.failures.clear()
        self.group.kill()
        self.group.shutdown()
        self.guest.close()
