# SPDX-License-Identifier: Apache-2.0
"""A real guest under a host that races requests from sixteen connections, or has its creates fail a thousand times."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from parma_policy.layers.convert import LayerImage
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, ParmaError
from tests.guest import vm_harness as vm
from ttrpc import Client, TtrpcError

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(400),
]

HOSTS = 16
SLEEP = ["/bin/sleep", "1000"]
MISSING = ["/bin/there-is-no-such-program"]
WATCH = [
    "/bin/sh",
    "-c",
    "grep MemAvailable /proc/meminfo; cat /proc/sys/fs/file-nr; ls /sys/block; cut -f 1,3 /proc/cgroups",
]
"""What the whole guest has, as any container sees it: memory, open files, block devices, cgroups."""

WATCHER = "aa" * 32
Request = tuple[str, Any]


@pytest.fixture(scope="module")
def layer_and_guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LayerImage, vm.Guest]]:
    directory = tmp_path_factory.mktemp("races")
    base = vm.write_layer(directory / "base", vm.layer_tar({}, busybox=True))
    top = vm.write_layer(directory / "top", vm.layer_tar({"top": b"top\n"}))
    execs = [{"command": WATCH, "signals": [9]}]
    containers = [vm.container_object([base], command, exec_processes=execs) for command in (SLEEP, MISSING)]
    containers.append(vm.container_object([base, top], SLEEP))
    disks = [directory / "base", directory / "top"]
    with vm.running(tmp_path_factory.mktemp("vm"), disks) as guest:
        guest.set_policy(vm.policy_text(*containers))
        guest.mount_layer(0, base)
        yield top, guest


@pytest.fixture
def guest(layer_and_guest: tuple[LayerImage, vm.Guest]) -> vm.Guest:
    return layer_and_guest[1]


def make_rootfs(guest: vm.Guest, name: str) -> None:
    guest.call("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20))
    guest.call("MountOverlay", overlay(name))


def overlay(name: str) -> pb.MountOverlayRequest:
    return pb.MountOverlayRequest(container_id=name, layer_targets=["/run/mounts/scsi/m0"])


def creation(name: str, args: Sequence[str] = SLEEP) -> Request:
    return "CreateContainer", pb.CreateContainerRequest(container_id=name, process=vm.process(args))


def attempt(client: Client, request: Request) -> str:
    """ "ok", or the refusal's code and text."""
    method, message = request
    try:
        client.call("parma.guest.v1.Guest", method, message, getattr(pb, f"{method}Response"), timeout=vm.CALL_TIMEOUT)
    except TtrpcError as error:
        return f"{error.code}: {error.message}"
    return "ok"


def at_once(guest: vm.Guest, jobs: Sequence[Callable[[Client], list[str]]]) -> list[str]:
    """Each job on a connection of its own, all beginning at the same moment; everything that was answered."""
    clients = [guest.connect() for _ in jobs]
    barrier = threading.Barrier(len(jobs))
    answers: list[str] = []

    def run(job: Callable[[Client], list[str]], client: Client) -> None:
        barrier.wait()
        answers.extend(job(client))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(jobs, clients, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
        guest.clients.remove(client)
    return answers


def race(guest: vm.Guest, *requests: Request) -> list[str]:
    """Sixteen hosts ask for these things, in turn."""
    jobs = [
        lambda client, number=number: [attempt(client, requests[number % len(requests)])] for number in range(HOSTS)
    ]
    return at_once(guest, jobs)


def remove(guest: vm.Guest, name: str) -> None:
    for method in ("DeleteContainer", "UnmountOverlay", "UnmountScratch"):
        guest.call(method, getattr(pb, f"{method}Request")(container_id=name))


def test_of_sixteen_mounts_of_one_layer_one_is_carried_out(layer_and_guest: tuple[LayerImage, vm.Guest]) -> None:
    top, guest = layer_and_guest
    target = "/run/mounts/scsi/m1"
    mount = pb.MountDeviceRequest(lun=1, target=target, device_hash=top.root_hash, data_blocks=top.data_blocks)
    assert race(guest, ("MountDevice", mount)).count("ok") == 1
    assert race(guest, ("UnmountDevice", pb.UnmountDeviceRequest(target=target))).count("ok") == 1


def test_of_sixteen_creates_starts_and_deletes_of_one_container_one_each_is_carried_out(guest: vm.Guest) -> None:
    name = "01" * 32
    make_rootfs(guest, name)
    assert race(guest, creation(name)).count("ok") == 1
    assert race(guest, ("StartContainer", pb.StartContainerRequest(container_id=name))).count("ok") == 1
    guest.call("SignalProcess", pb.SignalProcessRequest(container_id=name, signal=9))
    assert guest.wait(name) == 137
    assert race(guest, ("DeleteContainer", pb.DeleteContainerRequest(container_id=name))).count("ok") == 1
    for method in ("UnmountOverlay", "UnmountScratch"):
        guest.call(method, getattr(pb, f"{method}Request")(container_id=name))


def test_a_container_is_never_created_on_a_root_that_is_being_taken_away(guest: vm.Guest) -> None:
    for number in range(3):
        name = f"{0x100 + number:064x}"
        make_rootfs(guest, name)
        answers = race(guest, creation(name), ("UnmountOverlay", pb.UnmountOverlayRequest(container_id=name)))
        assert answers.count("ok") == 1  # one of the two, whichever came first
        created = guest_has(guest, name)
        if created:
            guest.start(name)
            guest.call("SignalProcess", pb.SignalProcessRequest(container_id=name, signal=9))
            assert guest.wait(name) == 137
            remove(guest, name)
        else:
            guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=name))


def guest_has(guest: vm.Guest, name: str) -> bool:
    return attempt(guest.clients[0], ("ListProcesses", pb.ListProcessesRequest(container_id=name))) == "ok"


def test_a_storm_of_everything_leaves_a_guest_in_order(guest: vm.Guest) -> None:
    names = [f"{0x200 + number:064x}" for number in range(3)]
    by_id = ("StartContainer", "DeleteContainer", "UnmountOverlay", "UnmountScratch", "ListProcesses", "Stats")

    def requests(name: str) -> list[Request]:
        return [
            ("MountScratch", pb.MountScratchRequest(container_id=name, memory_bytes=16 << 20)),
            ("MountOverlay", overlay(name)),
            creation(name),
            ("SignalProcess", pb.SignalProcessRequest(container_id=name, signal=9)),
            *((method, getattr(pb, f"{method}Request")(container_id=name)) for method in by_id),
        ]

    def storm(seed: int) -> Callable[[Client], list[str]]:
        choice = random.Random(seed)  # noqa: S311 - a test that can be repeated
        return lambda client: [attempt(client, choice.choice(requests(choice.choice(names)))) for _ in range(12)]

    answers = at_once(guest, [storm(seed) for seed in range(HOSTS)])
    assert len(answers) == 12 * HOSTS
    assert "ok" in answers
    assert not [answer for answer in answers if "internal error" in answer or "no more changes" in answer]
    tidy_up(guest, names)
    name = "0f" * 32
    make_rootfs(guest, name)
    guest.create(SLEEP, name)
    remove(guest, name)


def tidy_up(guest: vm.Guest, names: Sequence[str]) -> None:
    """Whatever is left of each, in the only order that works."""
    for name in names:
        attempt(guest.clients[0], ("SignalProcess", pb.SignalProcessRequest(container_id=name, signal=9)))
        attempt(guest.clients[0], ("WaitProcess", pb.WaitProcessRequest(container_id=name)))
        for method in ("DeleteContainer", "UnmountOverlay", "UnmountScratch"):
            attempt(guest.clients[0], (method, getattr(pb, f"{method}Request")(container_id=name)))


def look_around(guest: vm.Guest, number: int) -> tuple[int, int, list[str]]:
    """Available memory in KiB, open files, and the names of disks and numbers of cgroups."""
    request = pb.ExecProcessRequest(container_id=WATCHER, exec_id=f"watch{number}", process=vm.process(WATCH))
    guest.call("ExecProcess", request)
    lines = guest.read_all(WATCHER, exec_id=f"watch{number}").decode().splitlines()
    guest.wait(WATCHER, f"watch{number}")
    guest.call("DeleteProcess", pb.DeleteProcessRequest(container_id=WATCHER, exec_id=f"watch{number}"))
    return int(lines[0].split()[1]), int(lines[1].split()[0]), lines[2:]


def test_a_thousand_creates_that_fail_leave_nothing(guest: vm.Guest) -> None:
    name = "0e" * 32
    make_rootfs(guest, WATCHER)
    guest.create(SLEEP, WATCHER)
    guest.start(WATCHER)
    make_rootfs(guest, name)

    def fail(denied: int, failing: int) -> None:
        for _ in range(denied):
            with pytest.raises(Denied):
                guest.create(["/bin/sleep", "1001"], name)
        for _ in range(failing):  # these go as far as crun
            with pytest.raises(ParmaError, match="no-such-program"):
                guest.create(MISSING, name)

    fail(40, 5)
    look_around(guest, 0)
    memory, files, rest = look_around(guest, 1)
    fail(930, 25)
    # The kernel counts files in batches, and frees a removed cgroup and its memory some time after.
    deadline = time.monotonic() + 60
    for number in itertools.count(2):
        memory_after, files_after, rest_after = look_around(guest, number)
        if rest_after == rest and files_after <= files + 64 and memory_after > memory - 4096:
            break
        assert time.monotonic() < deadline, (memory, memory_after, files, files_after, rest, rest_after)
    guest.create(SLEEP, name)
    remove(guest, name)
