# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  (a fake takes what the real one takes)
"""Stand-ins for the kernel, crun, the policy and the wire: each remembers what it was asked and fails when told to."""

from __future__ import annotations

import itertools
import os
import queue
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.service import Access, Session
from parma_guest.cgroups import Cgroup
from parma_guest.containers import Runtime
from parma_guest.decisions import Engine, Verdict
from parma_guest.devicemapper import Target
from parma_guest.enforcer import Enforcer
from parma_guest.group import Group
from parma_guest.network_requests import Interface
from parma_guest.overlay import Overlays
from parma_guest.owners import Owners
from parma_guest.pod import Pod
from parma_guest.reaper import Child, Reaper
from parma_guest.runtime import Launched, RuntimeFailed, StdioPlan, run
from parma_guest.scratch import Scratches
from parma_guest.tee import NoTee, TeeProvider
from parma_guest.users import Identity
from parma_guest.values import ContainerId, User
from parma_guest.verity import Layers
from parma_wire import guest_pb2 as pb
from parma_wire.errors import NotFound, Unavailable

CONTAINER = ContainerId("c0" * 32)
OTHER = ContainerId("d1" * 32)
HASH = "ab" * 32
DISK_BYTES = 64 << 20


class FakeKernel:
    """Mounts as a list, in order. A target in ``broken`` cannot be mounted, one in ``stuck`` not be unmounted."""

    def __init__(self) -> None:
        self.mounts: list[tuple[str, str, str, int, str]] = []
        self.directories: list[str] = []
        self.owners: dict[str, tuple[int, int]] = {}
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self.heads: dict[str, bytes] = {}
        """First bytes of devices, where they are not zeros."""

    def read_head(self, device: str, size: int) -> bytes:
        return self.heads.get(device, b"").ljust(size, b"\0")

    def mount(self, source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
        if target in self.broken:
            raise OSError(22, "Invalid argument", target)
        self.mounts.append((source, target, fstype, flags, data))

    def unmount(self, target: str) -> None:
        if target in self.stuck:
            raise OSError(16, "Device or resource busy", target)
        found = [mount for mount in self.mounts if mount[1] == target]
        if not found:
            raise OSError(22, "Invalid argument", target)
        self.mounts.remove(found[-1])

    def mount_idmapped(self, source: str, target: str, namespace: int) -> None:
        assert str(Path(f"/proc/self/fd/{namespace}").readlink()).startswith("user:")
        self.mount(source, target, "idmapped")

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        self.owners[path] = uid, gid

    def make_directory(self, path: str, mode: int) -> None:
        self.directories.append(path)

    def mounted(self) -> list[str]:
        return [mount[1] for mount in self.mounts]


class FakeMapper:
    """Device-mapper devices by name."""

    def __init__(self) -> None:
        self.devices: dict[str, Target] = {}
        self.broken: set[str] = set()
        self.stuck: set[str] = set()
        self.provided: int | None = None
        self._numbers = itertools.count()

    def create(self, name: str, targets: list[Target], *, readonly: bool) -> str:
        if name.partition("-")[0] in self.broken:
            raise Unavailable(f"device mapper refused {name}")
        assert name not in self.devices
        (self.devices[name],) = targets
        return f"/dev/dm-{next(self._numbers)}"

    def status(self, name: str) -> str:
        return f"0 {self.devices[name].length + 8 if self.provided is None else self.provided} -"

    def remove(self, name: str) -> None:
        if name.partition("-")[0] in self.stuck:
            raise Unavailable(f"device mapper refused {name}")
        del self.devices[name]


class FakeDevices:
    """Disks at every LUN, all of one size."""

    def __init__(self, size: int = DISK_BYTES) -> None:
        self.bytes = size
        self.forgotten: list[str] = []

    def find(self, lun: int) -> str:
        if lun > 50:
            raise NotFound(f"no disk appeared at LUN {lun}")
        return f"/dev/sd{lun}"

    def forget(self, device: str) -> None:
        self.forgotten.append(device)

    def size(self, device: str) -> int:
        return self.bytes


class FakeDisk:
    """Remembers what was zeroed."""

    def __init__(self) -> None:
        self.zeroed: list[tuple[str, int, int]] = []

    def write_zeroes(self, device: str, offset: int, length: int) -> None:
        self.zeroed.append((device, offset, length))


class FakeRuntime:
    """Containers by id; ``fail`` names the operations that crun refuses."""

    def __init__(self) -> None:
        self.containers: dict[ContainerId, dict[str, Any]] = {}
        self.children: list[Child] = []
        self.calls: list[str] = []
        self.plans: list[StdioPlan] = []
        self.documents: list[Mapping[str, Any]] = []
        self.fail: set[str] = set()
        self._pids = itertools.count(1000)

    def create(self, container: ContainerId, spec: dict[str, Any], plan: StdioPlan) -> Launched:
        self._note("create")
        self.containers[container] = spec
        return self._launched(spec, plan)

    def start(self, container: ContainerId) -> None:
        self._note("start")

    def execute(self, container: ContainerId, process: dict[str, Any], plan: StdioPlan) -> Launched:
        self._note("exec")
        return self._launched(process, plan)

    def update(self, container: ContainerId, resources: dict[str, Any]) -> None:
        self._note("update")
        self.documents.append(resources)

    def delete(self, container: ContainerId) -> None:
        self._note("delete")
        del self.containers[container]

    def _note(self, call: str) -> None:
        if call in self.fail:
            raise RuntimeFailed(f"crun {call} failed: because")
        self.calls.append(call)

    def _launched(self, document: Mapping[str, Any], plan: StdioPlan) -> Launched:
        stdio, theirs = plan.open()
        for descriptor in theirs:
            os.close(descriptor)
        child = Child(next(self._pids))
        self.children.append(child)
        self.plans.append(plan)
        self.documents.append(document)
        return Launched(child, None, stdio)


class FakeHost:
    """Names for everybody, and cgroups below a folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.prepared: list[str] = []
        self.modes: dict[str, int] = {}
        self.programs: dict[str, bytes] = {}
        self.pinned_now: set[str] = set()

    def identity(self, container: ContainerId, user: User) -> Identity:
        return Identity("somebody", tuple((gid, f"g{gid}") for gid in (user.gid, *user.additional_gids)))

    def cgroup(self, container: ContainerId) -> Cgroup:
        return Cgroup(self._directory / container)

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        raise FileNotFoundError(path)

    def prepare_bind(self, base: str, source: str) -> None:
        self.prepared.append(source)

    def write_pause(self, root: str, program: bytes) -> None:
        self.programs[root] = program

    def set_mode(self, path: str, mode: int) -> None:
        self.modes[path] = mode

    @contextmanager
    def pinned(self, base: str, source: str, place: str) -> Iterator[str]:
        self.pinned_now.add(place)
        yield place
        self.pinned_now.remove(place)


class FakeAttestation:
    """Sessions that remember what was done with them; ``fail`` names the operations that do not work."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.endorsements: list[Endorsements] = []
        self.fail: set[str] = set()
        self.session = Session()

    def put_endorsements(self, endorsements: Endorsements) -> None:
        self.endorsements.append(endorsements)

    def prepare(self, container: ContainerId, access: Access, policy: bytes, host_data: bytes) -> Session:
        self._note("prepare", access, policy, host_data)
        self.session.on_serve(lambda pid: self._note("serve", pid))
        self.session.on_close(lambda: self._note("close"))
        return self.session

    def _note(self, call: str, *arguments: object) -> None:
        if call in self.fail:
            raise Unavailable(f"{call} does not work")
        self.calls.append((call, *arguments))


class FakeEngine:
    """A policy whose state is the tuple of what was allowed so far. ``deny`` holds the points it refuses."""

    def __init__(self, _policy: bytes = b"") -> None:
        self.deny: set[str] = set()
        self.requests: list[tuple[str, Mapping[str, object]]] = []
        self.verdict = Verdict(allowed=True, stdio=True)
        self.permissive = False

    def initial_state(self) -> tuple[str, ...]:
        return ()

    records = False
    open_door = False

    def after_denial(self, before: Any, asked: Any, after: Any) -> Any:
        return after if self.records else before

    def wants_endorsements(self) -> bool:
        return True

    def decide(self, state: tuple[str, ...], point: str, request: Mapping[str, object]) -> tuple[Verdict, Any]:
        self.requests.append((point, request))
        if point in self.deny:
            after = (*state, f"not {point}") if self.records else state
            return Verdict(allowed=False, message=f"{point} denied: because"), after
        return self.verdict, (*state, point)


class FakeNetwork:
    """A namespace with a name, and what it was told to become. Who listens on its loopback is in ``listeners``."""

    def __init__(self) -> None:
        self.interfaces: tuple[Interface, ...] = ()
        self.listeners: dict[int, tuple[str, int]] = {}

    def connect(self, port: int) -> socket.socket:
        if port not in self.listeners:
            raise ConnectionRefusedError(111, "Connection refused")
        return socket.create_connection(self.listeners[port], 5)

    @property
    def configured(self) -> bool:
        return bool(self.interfaces)

    def namespace(self) -> str:
        return "/run/parma/network"

    def configure(self, interfaces: tuple[Interface, ...]) -> None:
        self.interfaces = interfaces


class Rig:
    """A group over fakes. ``load_policy`` makes another engine than ``engine``."""

    def __init__(
        self,
        directory: Path,
        load_policy: Callable[[bytes], Engine] | None = None,
        tee: TeeProvider | None = None,
        host: FakeHost | None = None,
        crun: Runtime | None = None,
        reaper: Reaper | None = None,
    ) -> None:
        """``crun`` takes the place of ``runtime``; with ``reaper`` the enforcer's other helpers are real, too."""
        self.engine = FakeEngine()
        self.kernel = FakeKernel()
        self.mapper = FakeMapper()
        self.devices = FakeDevices()
        self.disk = FakeDisk()
        self.programs: list[list[str]] = []
        self.runtime = FakeRuntime()
        self.host = host or FakeHost(directory)
        self.enforcer = Enforcer(tee or NoTee(), load_policy or (lambda _policy: self.engine))
        self.scratches = Scratches(
            self.devices,
            self.mapper,
            self.kernel,
            self.disk,
            run(reaper) if reaper else lambda arguments, _: self.programs.append([*arguments]),
        )
        self.layers = Layers(self.devices, self.mapper, self.kernel)
        self.overlays = Overlays(self.kernel, Owners(self.kernel, (reaper or Reaper(lambda: None)).spawn))
        self.attestation = FakeAttestation()
        self.pod = Pod(self.kernel, self.host, self.scratches)
        self.network = FakeNetwork()
        self.group = Group(
            self.enforcer,
            self.layers,
            self.scratches,
            self.overlays,
            self.pod,
            crun or self.runtime,
            self.host,
            self.attestation,
            self.network,
        )

    def set_policy(self) -> None:
        self.enforcer.put_policy(0, b"policy")
        self.enforcer.set_policy(6)

    @property
    def state(self) -> tuple[str, ...]:
        """What the policy remembers."""
        with self.enforcer.read("WaitProcess") as asker:
            found: tuple[str, ...] = asker.state
            return found


class FakeForward:
    """A server stream of a forwarded connection, whose host side is the test."""

    def __init__(self, port: int) -> None:
        self.incoming: queue.Queue[pb.ForwardFrame | None] = queue.Queue()
        self.outgoing: queue.Queue[pb.ForwardFrame] = queue.Queue()
        self.give(open=pb.ForwardOpen(port=port))

    def recv(self) -> pb.ForwardFrame | None:
        return self.incoming.get()

    def send(self, frame: pb.ForwardFrame) -> None:
        self.outgoing.put(frame)

    def give(self, **fields: Any) -> None:
        self.incoming.put(pb.ForwardFrame(**fields))

    def take(self) -> pb.ForwardFrame:
        return self.outgoing.get(timeout=60)


class FakeStream:
    """A server stream whose host side is the test."""

    def __init__(self) -> None:
        self.incoming: queue.Queue[pb.StreamFrame | None] = queue.Queue()
        self.outgoing: queue.Queue[pb.StreamFrame] = queue.Queue()

    def recv(self) -> pb.StreamFrame | None:
        return self.incoming.get()

    def send(self, frame: pb.StreamFrame) -> None:
        self.outgoing.put(frame)

    def give(self, **fields: Any) -> None:
        self.incoming.put(pb.StreamFrame(**fields))

    def take(self) -> pb.StreamFrame:
        return self.outgoing.get(timeout=60)


def never(_callback: Callable[[], None]) -> None:
    """For ``on_cancel``: the caller never goes away."""


@contextmanager
def closing(*descriptors: int) -> Iterator[None]:
    """Closes descriptors."""
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
