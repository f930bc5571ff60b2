# SPDX-License-Identifier: Apache-2.0
"""The host dies at every boundary of every RPC: the enforcer has done all of a request or none, and keeps nothing.

The enforcer, its services and the wire are real; kernel and crun are fakes. What must hold is what a second enforcer
holds that was asked the same, before or after the request, by a host that lived.
"""

from __future__ import annotations

import functools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from parma_guest import points
from parma_guest.service import GuestService
from parma_guest.values import ContainerId, ExecId
from parma_wire import guest_pb2 as pb
from tests.cose.chains import Ledger
from tests.descriptors import descriptors
from tests.guest.fakes import FakeHost, Rig
from tests.guest.rpcs import HONEST, METHODS, SERVICE
from tests.guest.test_documents import ledgers
from tests.ttrpc.cuts import Cut, MortalClients
from tests.ttrpc.support import wait_until

ID = ContainerId("a" * 64)
EXIT_STATUS = 3


class DiskHost(FakeHost):
    """With a file system below the test's folder."""

    def prepare_bind(self, base: str, source: str) -> None:
        super().prepare_bind(base, source)
        self._place(source).mkdir(parents=True, exist_ok=True)

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        return os.open(self._place(root) / path, flags | os.O_CLOEXEC)

    def _place(self, path: str) -> Path:
        return self._directory / "files" / path.lstrip("/")


class World:
    """An enforcer behind a server, and hosts that come and go."""

    def __init__(self, directory: Path, **helpers: Any) -> None:
        """``helpers``: as `Rig` has them."""
        directory.mkdir()
        self.directory = directory
        self.rig = Rig(directory, host=DiskHost(directory), **helpers)
        self.powered_off = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.service = GuestService(self.rig.enforcer, self.rig.group, [("ready", 7)], self.powered_off.set)
        self.hosts = MortalClients(SERVICE, self.service)
        self._decide = self.rig.engine.decide
        self.rig.engine.decide = self._ask  # type: ignore[method-assign]

    def call(self, method: str, message: Any = None) -> object:
        """By a host that lives and goes: the answer, or the code of the refusal."""
        return self.hosts.call(method, HONEST[method](ID) if message is None else message)

    def snapshot(self) -> Mapping[str, object]:
        """All that a request could change."""
        rig, members = self.rig, self.rig.group._members
        files = self.rig.group._creator.host_files
        return {
            "policy": (rig.enforcer.policy_bytes, bytes(rig.enforcer._received), rig.enforcer.poisoned),
            "state": rig.enforcer._state,
            "documents": (bytes(self.service._documents._received), self.service._documents._accepted),
            "staged": [(file, bytes(data)) for file, data in files.staging._files],
            "provided": dict(files.provided._sources),
            "files": {
                str(path.relative_to(self.directory)): path.read_bytes() if path.is_file() else None
                for path in sorted(self.directory.rglob("*"))
            },
            "mounts": [*rig.kernel.mounts],
            "mapped": sorted(rig.mapper.devices),
            "crun": [*rig.runtime.calls],
            "containers": dict(rig.runtime.containers),
            "members": {
                name: (found.started, found.init.exited, sorted(found.execs), sorted(found.used_exec_ids))
                for name, found in members.containers.items()
            },
            "used": sorted(members.used_ids),
            "waiting": [len(child._callbacks) for child in rig.runtime.children],
            "pod": (rig.pod.sandbox, sorted(rig.pod._volumes)),
            "network": rig.network.interfaces,
            "attestation": ([*rig.attestation.endorsements], [*rig.attestation.calls]),
            "pinned": sorted(rig.host.pinned_now),
            "powered off": self.powered_off.is_set(),
        }

    def close(self) -> None:
        self.hosts.close()
        for found in self.rig.group._members.containers.values():
            for process in (found.init, *found.execs.values()):
                process.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _ask(self, state: Any, point: str, request: Mapping[str, object]) -> Any:
        answer = self._decide(state, point, request)
        self.hosts.reach(Cut.ASKED)
        return answer


# What comes before, and what is refused


def _nothing(_world: World) -> None:
    """There is nothing else to prepare."""


def _cgroup(**files: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        folder = world.directory / ID
        folder.mkdir()
        for name, text in {"procs": "", **files}.items():
            (folder / f"cgroup.{name}").write_text(text)

    return prepare


def _exit(exec_id: str) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        found = world.rig.group._members.get(ID).process(ExecId(exec_id))
        next(child for child in world.rig.runtime.children if child.pid == found.pid).finish(EXIT_STATUS)

    return prepare


def _terminal(world: World) -> None:
    master, slave = os.openpty()
    os.close(slave)
    stdio = world.rig.group._members.get(ID).init.stdio
    stdio.close()
    stdio._closing, stdio._terminal = False, True
    stdio.set_terminal(master)


def _killable(world: World) -> None:
    """The process that keeps the pod's namespaces is one of this machine."""
    world.process = subprocess.Popen(["sleep", "1000"])
    world.rig.group._members.get(ID).init._pidfd = os.pidfd_open(world.process.pid)


def _permissive(world: World) -> None:
    world.rig.engine.permissive = True


class Row(NamedTuple):
    """What an honest host does before, so that the request makes sense."""

    before: tuple[str, ...] = ()
    prepare: Callable[[World], None] = _nothing
    earlier: Callable[[World], None] = _nothing
    """What must be so before there is a policy."""

    no_policy: bool = False


_ROOTFS = ("MountDevice", "MountScratch", "MountOverlay")
_CREATED = (*_ROOTFS, "CreateContainer")
_RUNNING = (*_CREATED, "StartContainer")

ROWS: Mapping[str, Row] = {
    "Hello": Row(no_policy=True),
    "PutPolicy": Row(no_policy=True),
    "SetPolicy": Row(("PutPolicy",), no_policy=True),
    "PutDocument": Row(),
    "LoadFragment": Row(("PutDocument",)),
    "LoadTrustList": Row(("PutDocument",)),
    "Evidence": Row(),
    "Recording": Row(("MountDevice",), earlier=_permissive),
    "PutEndorsements": Row(),
    "ConfigureNetwork": Row(),
    "PutFile": Row(),
    "ProvideFiles": Row(("PutFile",)),
    "MountDevice": Row(),
    "UnmountDevice": Row(("MountDevice",)),
    "MountScratch": Row(),
    "UnmountScratch": Row(("MountScratch",)),
    "MountOverlay": Row(_ROOTFS[:2]),
    "UnmountOverlay": Row(_ROOTFS),
    "CreateSandbox": Row(),
    "StopSandbox": Row(("CreateSandbox",), _killable),
    "MountVolume": Row(("CreateSandbox",)),
    "CreateContainer": Row(_ROOTFS),
    "StartContainer": Row(_CREATED),
    "ExecProcess": Row(_RUNNING),
    "SignalProcess": Row(_RUNNING, _cgroup()),
    "WaitProcess": Row(_RUNNING, _exit("")),
    "ResizePty": Row(_CREATED, _terminal),
    "DeleteProcess": Row((*_RUNNING, "ExecProcess"), _exit("e0")),
    "DeleteContainer": Row(_CREATED),
    "ListProcesses": Row(_CREATED, _cgroup()),
    "Stats": Row(_CREATED, _cgroup()),
    "PauseContainer": Row(_RUNNING, _cgroup(events="frozen 1\n", freeze="0")),
    "ResumeContainer": Row(_RUNNING, _cgroup(events="frozen 0\n", freeze="1")),
    "UpdateResources": Row(_CREATED),
    "PowerOff": Row(),
}

ELSEWHERE = {
    "Streams.Stream": (
        "tests/guest/test_streams.py::test_a_kind_has_one_stream_at_a_time_and_a_lost_one_can_be_opened_again"
    ),
    "Streams.Forward": "tests/guest/test_forwarding.py::test_a_host_that_goes_in_the_middle_resets_the_connection",
    "EmulatedSecureProcessor.GetReport": "tests/guest/test_tee.py::test_a_lost_connection_is_replaced_by_the_next_one",
    "EmulatedSecureProcessor.GetDerivedKey": (
        "tests/guest/test_tee.py::test_a_lost_connection_is_replaced_by_the_next_one"
    ),
    "HostEvidence.Evidence": "tests/shim/test_evidence.py",  # the shim's, which the guest never sees
}
"""RPCs whose connections end in other tests."""


@functools.cache
def _trust_list() -> bytes:
    return ledgers(Ledger.make())


_SPECIAL: Mapping[str, Callable[[], Any]] = {
    "PutDocument before LoadTrustList": lambda: pb.PutDocumentRequest(offset=0, data=_trust_list()),
    "LoadTrustList": lambda: pb.LoadTrustListRequest(size=len(_trust_list())),
}
"""Where the document is another than that of `HONEST`."""


def test_every_rpc_has_a_row() -> None:
    others = [each for name, each in pb.DESCRIPTOR.services_by_name.items() if name != SERVICE.name]
    assert set(HONEST) == set(METHODS) == set(ROWS)
    assert set(ELSEWHERE) == {f"{each.name}.{method.name}" for each in others for method in each.methods}
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert f"def {name}" in (Path(__file__).parents[2] / path).read_text()


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Makes worlds in which a request makes sense."""
    made: list[World] = []

    def make(method: str) -> World:
        row = ROWS[method]
        world = World(tmp_path / f"world-{len(made)}")
        made.append(world)
        row.earlier(world)
        if not row.no_policy:
            world.rig.set_policy()
        for earlier in row.before:
            special = _SPECIAL.get(f"{earlier} before {method}")
            answer = world.call(earlier, special() if special else None)
            assert not isinstance(answer, int), (earlier, answer)
        row.prepare(world)
        return world

    yield make
    while made:
        made.pop().close()


def request_of(method: str) -> Any:
    special = _SPECIAL.get(method)
    return special() if special else HONEST[method](ID)


def cuts(method: str) -> list[Cut]:
    asks = bool((points.row(method) or points.Row(points.Kind.STOP)).points)
    return [cut for cut in Cut if asks or cut is not Cut.ASKED]


@pytest.mark.parametrize(
    ("method", "cut"),
    [(method, cut) for method in METHODS for cut in cuts(method)],
    ids=lambda item: getattr(item, "name", item),
)
def test_a_host_that_dies_leaves_all_of_its_request_or_nothing(
    worlds: Callable[[str], World], method: str, cut: Cut
) -> None:
    request = request_of(method)
    lived, died = worlds(method), worlds(method)
    assert died.snapshot() == lived.snapshot()
    if not cut.torn:
        answer = lived.call(method, request)
        assert not isinstance(answer, int), f"refused with {answer}: the row has not what it takes"
    died.hosts.die(method, request, cut)
    assert died.snapshot() == lived.snapshot()
    # Whoever comes next meets what he would have met without the death.
    assert died.call(method, request) == lived.call(method, request)
    assert died.snapshot() == lived.snapshot()
    assert not died.rig.enforcer.poisoned


def test_one_who_waits_for_a_process_and_dies_is_forgotten(worlds: Callable[[str], World]) -> None:
    """WaitProcess is the one request that lasts: its host dies while it is being served."""
    world = worlds("ExecProcess")
    before = world.snapshot()
    host = world.hosts.dial()
    host.sendall(world.hosts.frame("WaitProcess", HONEST["WaitProcess"](ID)))
    wait_until(lambda: world.snapshot()["waiting"] != before["waiting"])
    host.close()
    wait_until(lambda: world.snapshot() == before)
    world.hosts.settle()


def test_a_half_done_request_would_be_noticed(worlds: Callable[[str], World]) -> None:
    """The comparison can fail: a mount that the policy does not remember."""
    lived, died = worlds("MountDevice"), worlds("MountDevice")
    died.rig.kernel.mount("/dev/x", "/run/mounts/scsi/m0", "ext4")
    assert died.snapshot() != lived.snapshot()
