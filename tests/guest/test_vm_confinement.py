# SPDX-License-Identifier: Apache-2.0
"""What a container cannot reach in a real guest, whatever its policy grants: disks, devices, vsock."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from parma_wire import guest_pb2 as pb
from tests.guest import tiny_elf
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

AF_UNIX, AF_VSOCK, SOCK_STREAM = 1, 40, 1

PROGRAMS = {
    "vsock": tiny_elf.amd64(41, AF_VSOCK, SOCK_STREAM),
    "unix": tiny_elf.amd64(41, AF_UNIX, SOCK_STREAM),
    "vsock-i386": tiny_elf.i386(359, AF_VSOCK, SOCK_STREAM),
    "unix-i386": tiny_elf.i386(359, AF_UNIX, SOCK_STREAM),
    "socketcall": tiny_elf.i386(102, 1, 0),
    "io_uring": tiny_elf.amd64(425, 8, 0),
}
ANSWERS = {
    "vsock": errno.EAFNOSUPPORT,
    "unix": 256 - 3,  # it was made: descriptor 3
    "vsock-i386": errno.EAFNOSUPPORT,
    "unix-i386": 256 - 3,
    "socketcall": errno.EAFNOSUPPORT,
    "io_uring": errno.ENOSYS,
}

DEVICES = """
try() {
    mknod /dev/x $2 $3 $4 && { head -c 512 /dev/x > /dev/null && echo "$1 READ" || echo "$1 not read"; }
    rm -f /dev/x
}
try zero c 1 5
for entry in /sys/block/*; do try "disk ${entry##*/}" b $(tr : ' ' < $entry/dev); done
try mem c 1 1
try kmsg c 1 11
try mapper c $(tr : ' ' < /sys/class/misc/device-mapper/dev)
try vsock c $(tr : ' ' < /sys/class/misc/vsock/dev)
echo end
"""

MASKED = """
cat /proc/keys /proc/timer_list /proc/interrupts /proc/kcore 2>/dev/null | head -c 1 | wc -c
ls -A /sys/firmware | grep -c .
echo 0 2>/dev/null > /proc/sys/kernel/panic && echo sysctl
"""

SCRIPTS = {"devices": ["/bin/sh", "-c", DEVICES], "masked": ["/bin/sh", "-c", MASKED]}
SLEEP = ["/bin/sleep", "1000"]
PLAIN, ELEVATED = "a1" * 32, "e1" * 32


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm.Guest]:
    """One with an ordinary container, and one that is elevated and has every capability of this policy."""
    directory = tmp_path_factory.mktemp("confinement")
    layer = vm.write_layer(directory / "base", vm.layer_tar(PROGRAMS, busybox=True))
    execs = [{"command": command, "signals": [9]} for command in (*SCRIPTS.values(), *([f"/{p}"] for p in PROGRAMS))]
    policy = vm.policy_text(
        vm.container_object([layer], SLEEP, exec_processes=execs),
        vm.container_object([layer], SLEEP, exec_processes=execs, allow_elevated=True),
    )
    with (directory / "scratch").open("wb") as scratch:
        scratch.truncate(64 << 20)
    disks, writable = [directory / "base"], [directory / "scratch"]
    with vm.running(tmp_path_factory.mktemp("vm"), disks, writable=writable) as guest:
        guest.set_policy(policy)
        guest.prepare([(0, layer)], PLAIN, scratch_lun=1)
        guest.create(SLEEP, PLAIN)
        guest.start(PLAIN)
        guest.call("MountScratch", pb.MountScratchRequest(container_id=ELEVATED, memory_bytes=16 << 20))
        overlay = pb.MountOverlayRequest(container_id=ELEVATED, layer_targets=["/run/mounts/scsi/m0"])
        guest.call("MountOverlay", overlay)
        guest.create(SLEEP, ELEVATED, privileged=True)
        guest.start(ELEVATED)
        yield guest


def execute(guest: vm.Guest, container: str, name: str, args: list[str]) -> tuple[int, list[str]]:
    """Exit status and lines of output."""
    request = pb.ExecProcessRequest(container_id=container, exec_id=name, process=vm.process(args))
    guest.call("ExecProcess", request)
    output = guest.read_all(container, exec_id=name).decode()
    return guest.wait(container, name), output.splitlines()


CONTAINERS = pytest.mark.parametrize("container", [PLAIN, ELEVATED], ids=["plain", "elevated"])


@CONTAINERS
def test_no_disk_and_no_other_device_of_the_guest_can_be_opened(guest: vm.Guest, container: str) -> None:
    _, lines = execute(guest, container, "devices", SCRIPTS["devices"])
    assert lines[0] == "zero READ"  # nodes can be made, and harmless ones used
    assert lines[-1] == "end"
    refused = [line.removesuffix(" not read") for line in lines[1:-1] if line.endswith(" not read")]
    assert refused == [line.removesuffix(" READ").removesuffix(" not read") for line in lines[1:-1]]
    # Layer, scratch, and what dm-verity and dm-crypt make of them.
    assert {"disk sda", "disk sdb", "disk dm-0", "disk dm-1", "mem", "kmsg", "mapper", "vsock"} <= set(refused)


@CONTAINERS
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_vsock_can_be_made_on_any_abi(guest: vm.Guest, container: str, program: str) -> None:
    assert execute(guest, container, program, [f"/{program}"])[0] == ANSWERS[program]


def test_proc_and_sys_are_masked_unless_the_policy_elevates(guest: vm.Guest) -> None:
    assert execute(guest, PLAIN, "masked", SCRIPTS["masked"])[1] == ["0", "0"]
    status, lines = execute(guest, ELEVATED, "masked", SCRIPTS["masked"])
    assert (status, lines[0], lines[-1]) == (0, "1", "sysctl")
    assert lines[1] != "0"
