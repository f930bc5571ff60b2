# SPDX-License-Identifier: Apache-2.0
"""A container group over a made-up VM and a made-up guest: what happens in which order, and what is taken back."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import ttrpc
from parma_shim.config import Config
from parma_shim.group import ContainerGroup
from parma_shim.guest import GuestClient
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm.image import record_verified
from parma_shim.vm.layers import Layer
from parma_shim.vm.machine import VirtualMachine
from parma_shim.vm.session import Session
from parma_wire import guest_pb2 as pb
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
    Unavailable,
    Unsupported,
)
from tests.shim.support import eventually
from tests.vm.fake_guest import FakeGuest
from tests.vm.support import soon, spec, write_image

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
        if self.alive:
            self._callbacks.append(callback)
        else:
            callback(-9)

    def wait(self, timeout: float) -> bool:
        return self.ended.wait(min(timeout, 0.05))

    def kill(self) -> None:
        if self.alive:
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
            call_timeout=2.0,
            policy_dirs=(directory,),
        )._replace(**changes)
        self.group = ContainerGroup(
            config,
            group_id="c1",
            namespace="default",
            directory=directory / "state/vm",
            grpc_address="/nowhere",
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
        deadline: float | None = None,
    ) -> None:
        annotations = {} if policy is None else {"io.parma.policy": base64.b64encode(policy).decode()}
        if fragments:
            annotations["io.parma.fragments"] = json.dumps(fragments)
        oci = {"annotations": annotations, "process": {"args": ["/bin/true"], "cwd": "/"}}
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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_the_first_container_boots_the_vm_and_mounts_what_it_needs(world: World) -> None:
    world.create()
    assert world.policy == POLICY
    assert world.guest.methods == CREATED
    (overlay,) = (request for name, request in world.guest.requests if name == "MountOverlay")
    assert overlay.layer_targets == ["/run/mounts/scsi/m1", "/run/mounts/scsi/m0"], "top layer first"
    (scratch,) = (request for name, request in world.guest.requests if name == "MountScratch")
    assert world.machine.disks == {0: True, 1: True, scratch.lun: False}
    assert world.group.vm_pid == 4711
    assert isinstance(world.group.guest, GuestClient)
    assert world.sources[0].closed


def fragment(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_fragments_are_handed_over_in_order_before_anything_is_mounted(world: World) -> None:
    world.create(fragments=[fragment(b"a"), {"trust-list": fragment(b"b")}, fragment(b"c")])
    put = ["PutDocument", "LoadFragment", "PutDocument", "LoadTrustList", "PutDocument", "LoadFragment"]
    assert world.guest.methods == [*put, *CREATED]
    assert [request.data for name, request in world.guest.requests if name == "PutDocument"] == [b"a", b"b", b"c"]


def test_a_fragment_that_the_vm_has_is_not_handed_over_again(world: World) -> None:
    world.create(fragments=[fragment(b"a")])
    world.create("c2", fragments=[fragment(b"a"), fragment(b"b")])
    assert [request.data for name, request in world.guest.requests if name == "PutDocument"] == [b"a", b"b"]


def test_a_fragment_that_is_refused_mounts_nothing_and_is_offered_again(world: World) -> None:
    world.guest.failures["LoadFragment"] = Denied("load_fragment denied: because")
    with pytest.raises(Denied, match="because"):
        world.create(fragments=[fragment(b"a")])
    assert "MountDevice" not in world.guest.methods
    world.guest.failures.clear()
    world.create(fragments=[fragment(b"a")])
    assert world.guest.methods.count("LoadFragment") == 2


def test_fragments_that_make_no_sense_boot_no_vm(world: World) -> None:
    with pytest.raises(Malformed):
        world.create(fragments=["%%%"])
    assert world.machines == []


def test_the_second_container_shares_vm_and_layers(world: World) -> None:
    world.create()
    world.create("c2", policy=None)
    assert len(world.machines) == 1
    assert world.guest.methods == [*CREATED, "MountScratch", "MountOverlay", "CreateContainer"]


@pytest.mark.parametrize("policy", [POLICY, None])
def test_the_second_containers_policy_is_absent_or_the_same(world: World, policy: bytes | None) -> None:
    world.create()
    world.create("c2", policy=policy)


def test_another_policy_for_the_same_vm_is_denied(world: World) -> None:
    world.create()
    with pytest.raises(Denied, match="another one"):
        world.create("c2", policy=b"package other\n")
    assert world.guest.methods == CREATED
    assert world.machine.alive


def test_deleting_takes_back_everything_in_reverse(world: World) -> None:
    world.create()
    world.guest.requests.clear()
    world.group.delete_container("c1")
    assert world.guest.methods == [
        "DeleteContainer",
        "UnmountOverlay",
        "UnmountScratch",
        "UnmountDevice",
        "UnmountDevice",
    ]
    assert world.machine.disks == {}
    assert world.machine.alive
    with pytest.raises(NotFound):
        world.group.delete_container("c1")


def test_a_container_that_runs_is_not_deleted(world: World) -> None:
    world.create()
    world.guest.failures["DeleteContainer"] = FailedPrecondition("it runs")
    with pytest.raises(FailedPrecondition, match="it runs"):
        world.group.delete_container("c1")
    assert len(world.machine.disks) == 3
    world.guest.failures.clear()
    world.group.delete_container("c1")
    assert world.machine.disks == {}


@pytest.mark.parametrize("method", ["MountDevice", "MountScratch", "MountOverlay", "CreateContainer"])
def test_a_failure_in_the_first_container_ends_the_vm(world: World, method: str) -> None:
    world.guest.failures[method] = Denied(f"{method} denied")
    with pytest.raises(Denied, match=f"{method} denied"):
        world.create()
    assert world.machine.destroyed
    assert world.group.vm_pid == 0
    assert world.sources[0].closed
    world.guest.failures.clear()
    world.create()
    assert len(world.machines) == 2


@pytest.mark.parametrize(
    ("method", "undone"),
    [
        ("MountScratch", []),
        ("MountOverlay", ["UnmountScratch"]),
        ("CreateContainer", ["UnmountOverlay", "UnmountScratch"]),
    ],
)
def test_a_failure_in_the_second_container_leaves_the_first_alone(world: World, method: str, undone: list[str]) -> None:
    world.create()
    world.guest.failures[method] = Denied("no")
    with pytest.raises(Denied):
        world.create("c2")
    assert world.machine.alive
    assert [name for name in world.guest.methods if name.startswith("Un")] == undone
    assert len(world.machine.disks) == 3


def test_a_guest_that_is_stuck_while_a_container_is_taken_back_is_killed(tmp_path: Path) -> None:
    world = World(tmp_path, call_timeout=0.2)
    world.create()
    world.guest.failures["CreateContainer"] = Denied("no")
    world.guest.stuck.add("UnmountOverlay")
    with pytest.raises(Denied):
        world.create("c2")
    assert not world.machine.alive
    assert world.exits == [-9]
    world.close()


def test_no_layers_means_no_vm_and_the_layers_error_is_the_one_reported(world: World) -> None:
    world.layer_error = NotFound("the blobs are gone")
    with pytest.raises(NotFound, match="blobs"):
        world.create()
    assert all(machine.destroyed for machine in world.machines)
    world.layer_error = None
    world.create()


def test_a_failed_boot_is_reported_and_can_be_tried_again(world: World) -> None:
    world.boot_error = Unavailable("no QEMU")
    with pytest.raises(Unavailable, match="no QEMU"):
        world.create()
    assert world.sources[0].closed
    assert world.group.vm_pid == 0
    world.boot_error = None
    world.create()


@pytest.mark.parametrize(
    ("policy", "error", "text"), [(None, FailedPrecondition, "parma policy generate"), (b"", Denied, "empty")]
)
def test_without_a_policy_nothing_is_started(
    world: World, policy: bytes | None, error: type[ParmaError], text: str
) -> None:
    with pytest.raises(error, match=text):
        world.create(policy=policy)
    assert world.machines == []
    assert world.sources == []


def test_without_a_guest_image_nothing_is_started(world: World) -> None:
    (world.directory / "image/manifest.json").unlink()
    with pytest.raises(NotFound, match="guest image"):
        world.create()
    assert world.machines == []


def test_a_name_that_is_taken_is_refused(world: World) -> None:
    world.create()
    with pytest.raises(AlreadyExists):
        world.create()


def test_a_deletion_that_failed_is_made_up_for_when_the_name_is_wanted_again(world: World) -> None:
    world.create()
    world.create("c2")
    disks = dict(world.machine.disks)
    world.guest.failures["DeleteContainer"] = Unavailable("busy")
    with pytest.raises(Unavailable, match="busy"):
        world.group.delete_container("c2")
    with pytest.raises(Unavailable, match="busy"):
        world.create("c2")
    del world.guest.failures["DeleteContainer"]
    world.create("c2")
    assert world.guest.methods.count("DeleteContainer") == 3
    assert world.machine.disks == disks
    with pytest.raises(AlreadyExists):
        world.create("c2")


def test_what_the_end_of_the_vm_interrupts_is_deleted(world: World) -> None:
    world.create()
    world.create("c2")
    world.guest.failures["DeleteContainer"] = Unavailable("the connection is closed")
    world.group.kill()
    world.group.delete_container("c2")
    with pytest.raises(NotFound):
        world.group.delete_container("c2")


@contextlib.contextmanager
def setting_up(world: World) -> Iterator[None]:
    """Meanwhile a container is being created whose layers are not ready."""
    begun = len(world.sources)
    world.layers_ready.clear()
    thread = threading.Thread(target=world.create, args=("slow",))
    thread.start()
    try:
        eventually(lambda: len(world.sources) > begun)
        yield
    finally:
        world.layers_ready.set()
        thread.join(10)


def test_a_deletion_whose_turn_comes_too_late_for_its_caller_is_done_in_its_turn(world: World) -> None:
    world.create()
    disks = dict(world.machine.disks)
    world.create("c2")
    with setting_up(world), pytest.raises(DeadlineExceeded, match="deleted after them"):
        world.group.delete_container("c2", deadline=time.monotonic())
    eventually(lambda: "UnmountScratch" in world.guest.methods)
    world.group.delete_container("slow")
    assert world.machine.disks == disks
    with pytest.raises(NotFound):
        world.group.delete_container("c2")


def test_a_late_deletion_spares_a_later_container_of_the_same_name(world: World) -> None:
    world.create()
    world.create("c2")
    with setting_up(world), pytest.raises(DeadlineExceeded):
        world.group.delete_container("c2", deadline=time.monotonic())
    world.create("c2")  # before the late deletion or after it
    eventually(lambda: "late-delete" not in [thread.name for thread in threading.enumerate()])
    assert world.guest.methods.count("DeleteContainer") == 1
    with pytest.raises(AlreadyExists):
        world.create("c2")


def test_a_late_deletion_that_fails_is_logged_and_made_up_for_when_the_name_is_wanted(world: World) -> None:
    world.create()
    world.create("c2")
    world.guest.failures["DeleteContainer"] = Unavailable("busy")
    with setting_up(world), pytest.raises(DeadlineExceeded):
        world.group.delete_container("c2", deadline=time.monotonic())
    eventually(lambda: "container c2 could not be deleted late: busy" in world.log)
    del world.guest.failures["DeleteContainer"]
    world.create("c2")


def test_the_end_of_the_vm_is_reported_once_and_fails_what_waits(world: World) -> None:
    world.create()
    world.guest.stuck.add("WaitProcess")
    waiting = threading.Event()
    failed: list[ParmaError] = []

    def wait() -> None:
        waiting.set()
        try:
            world.group.guest.wait_process("0" * 64, "")
        except ParmaError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    world.machine.kill()
    thread.join(10)
    assert isinstance(failed[0], Unavailable)
    assert world.exits == [-9]


def test_after_the_end_of_the_vm_containers_can_be_deleted_but_not_added(world: World) -> None:
    world.create()
    world.machine.kill()
    with pytest.raises(Unavailable, match="ended"):
        world.create("c2")
    world.group.delete_container("c1")
    world.create()
    assert len(world.machines) == 2


def test_stream_connections_end_with_the_vm(world: World) -> None:
    world.create()
    client = world.group.open_stream_connection()
    other = world.group.open_stream_connection()
    other.close()
    other.join(10)
    world.machine.kill()
    client.join(10)
    assert client.closed


def test_without_a_vm_there_is_no_guest(world: World) -> None:
    with pytest.raises(FailedPrecondition):
        _ = world.group.guest
    with pytest.raises(FailedPrecondition):
        world.group.open_stream_connection()
    assert world.group.timings == {}
    assert world.group.status == {}


def test_shutdown_powers_off_first_and_can_be_repeated(world: World) -> None:
    world.create()
    world.group.shutdown()
    world.group.shutdown()
    assert world.guest.methods[-1] == "PowerOff"
    assert world.machine.destroyed


def test_shutdown_ends_a_create_that_is_stuck(world: World) -> None:
    world.guest.stuck.add("MountOverlay")
    errors: list[ParmaError] = []

    def create() -> None:
        try:
            world.create()
        except ParmaError as error:
            errors.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    while "MountOverlay" not in world.guest.methods:
        assert thread.is_alive()
        time.sleep(0.001)
    world.group.shutdown()
    thread.join(10)
    assert errors
    assert world.machine.destroyed


def test_kill_before_the_vm_is_there_ends_it_as_soon_as_it_is(world: World) -> None:
    original = world._boot

    def boot(*arguments: Any, **keywords: Any) -> Session:
        world.group.kill()
        return original(*arguments, **keywords)

    world.group._booter._boot_session = boot  # type: ignore[misc]
    with pytest.raises(Unavailable):
        world.create()
    assert world.machine.destroyed


def test_a_second_create_waits_for_the_first_no_longer_than_its_deadline(world: World) -> None:
    world.guest.stuck.add("MountOverlay")

    def create() -> None:
        with pytest.raises(ParmaError):
            world.create()

    thread = threading.Thread(target=create)
    thread.start()
    while "MountOverlay" not in world.guest.methods:
        time.sleep(0.001)
    with pytest.raises(DeadlineExceeded, match="still being set up"):
        world.create("c2", deadline=time.monotonic() + 0.05)
    world.group.kill()
    thread.join(10)


def test_the_callers_deadline_bounds_every_step(world: World) -> None:
    world.guest.stuck.add("MountDevice")
    with pytest.raises(DeadlineExceeded):
        world.create(deadline=time.monotonic() + 1)
    assert world.machine.destroyed


def test_beside_others_what_was_begun_is_answered_and_taken_back_when_the_callers_time_is_over(world: World) -> None:
    world.create()
    world.guest.late["MountScratch"] = 0.2
    with pytest.raises(DeadlineExceeded, match="in time"):
        world.create("c2", deadline=time.monotonic() + 0.1)
    assert world.guest.methods[-2:] == ["MountScratch", "UnmountScratch"]
    assert len(world.machine.disks) == 3
    assert world.machine.alive
    world.create("c2")


def test_scratch_space_in_guest_memory_needs_no_disk(tmp_path: Path) -> None:
    world = World(tmp_path, scratch="memory")
    world.create()
    (scratch,) = (request for name, request in world.guest.requests if name == "MountScratch")
    assert scratch == pb.MountScratchRequest(container_id=scratch.container_id, memory_bytes=16 << 20)
    assert world.machine.disks == {0: True, 1: True}
    world.group.delete_container("c1")
    assert world.machine.disks == {}
    world.close()


SHARED_PIDS = [{"type": "pid", "path": "/proc/1/ns/pid"}]
POD_ID = "9" * 64


def member(name: str, namespaces: Sequence[object] = (), **oci: Any) -> ContainerSpec:
    document = {"process": {"args": ["x"], "cwd": "/"}, "linux": {"namespaces": list(namespaces)}, **oci}
    return ContainerSpec(name, name.encode().hex().rjust(64, "0"), Path("/"), document, False, False)


def begin_pod(world: World, **oci: Any) -> None:
    annotations = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.parma.policy": base64.b64encode(POLICY).decode(),
    }
    document = {"annotations": annotations, "hostname": "web", "process": {"args": ["/pause"]}, **oci}
    world.group.create_container(ContainerSpec("c1", POD_ID, world.directory, document, False, False), deadline=soon())


def test_a_container_may_join_the_pid_namespace_of_its_groups_first_one(world: World) -> None:
    world.create()
    world.group.create_container(member("c2", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == b"c1".hex().rjust(64, "0")


def test_a_pod_needs_no_image_of_its_own(world: World) -> None:
    begin_pod(world, linux={"sysctl": {"net.ipv4.tcp_syncookies": "1"}})
    assert world.guest.methods == ["CreateSandbox"]
    request = next(request for name, request in world.guest.requests if name == "CreateSandbox")
    assert (request.sandbox_id, request.hostname) == (POD_ID, "web")
    assert dict(request.sysctls) == {"net.ipv4.tcp_syncookies": "1"}
    assert world.sources == []
    world.group.create_container(member("c2"), deadline=soon())
    assert world.guest.methods[1:] == CREATED
    assert len(world.machines) == 1


def test_a_pod_without_a_policy_is_refused_before_anything_boots(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="no execution policy"):
        begin_pod(world, annotations={"io.kubernetes.cri.container-type": "sandbox"})
    assert world.machines == []


def test_empty_dirs_are_made_once_for_the_pod_and_never_come_from_the_host(world: World) -> None:
    begin_pod(world)
    source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    mounts = [{"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rw"]}]
    limits = {"io.parma.volume-limits": "cache=64Mi"}
    for name in ("c2", "c3"):
        world.group.create_container(member(name, mounts=mounts, annotations=limits), deadline=soon())
        (mount,) = world.guest.requests[-1][1].mounts
        assert mount.source == f"/run/gcs/c/{POD_ID}/sandboxMounts/volumes/empty-dir/cache"
    (volume,) = [request for name, request in world.guest.requests if name == "MountVolume"]
    assert (volume.name, volume.WhichOneof("backing")) == ("cache", "lun")
    assert world.machine.disks[volume.lun] is False


def test_a_volume_that_fails_is_tried_again_and_its_disk_is_not_left(world: World) -> None:
    begin_pod(world)
    source = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/cache"
    mounts = [{"destination": "/data", "type": "bind", "source": source}]
    world.guest.failures["MountVolume"] = Unavailable("no")
    with pytest.raises(Unavailable):
        world.group.create_container(member("c2", mounts=mounts), deadline=soon())
    assert world.machine.disks == {}
    assert world.machine.alive
    world.guest.failures.clear()
    world.group.create_container(member("c2", mounts=mounts), deadline=soon())


def test_shared_processes_are_the_pods_unless_a_container_is_there_to_look_at(world: World) -> None:
    begin_pod(world)
    world.group.create_container(member("c2", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == POD_ID
    world.group.create_container(member("c3"), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == ""
    world.group.create_container(member("c4", SHARED_PIDS), deadline=soon())
    assert world.guest.requests[-1][1].pid_namespace_of == b"c3".hex().rjust(64, "0")
    world.group.create_container(member("c5"), deadline=soon())
    with pytest.raises(Unsupported, match="cannot be told"):
        world.group.create_container(member("c6", SHARED_PIDS), deadline=soon())


def test_the_pod_stays_when_a_container_fails_or_goes(world: World) -> None:
    begin_pod(world)
    world.guest.failures["CreateContainer"] = Denied("no")
    with pytest.raises(Denied):
        world.group.create_container(member("c2"), deadline=soon())
    assert world.machine.alive
    world.guest.failures.clear()
    world.group.create_container(member("c2"), deadline=soon())
    world.group.delete_container("c2")
    world.group.delete_container("c1")
    assert world.guest.methods.count("DeleteContainer") == 1  # the guest keeps the pod's process until the end
