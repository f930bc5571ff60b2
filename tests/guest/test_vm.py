# SPDX-License-Identifier: Apache-2.0
"""The enforcer in real VMs: dm-verity, dm-crypt, overlayfs and crun are the real ones."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_policy.layers.convert import LayerImage
from parma_wire import guest_pb2 as pb
from parma_wire.errors import (
    AlreadyExists,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
)
from parma_wire.limits import STREAM_WINDOW
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

BASE_LUN, TOP_LUN, SCRATCH_LUN = 0, 1, 2

EXECS = (
    ["/bin/echo", "from exec"],
    ["/bin/sh", "-c", "exit 7"],
    ["/bin/sleep", "1000"],
    ["/bin/cat"],
    ["/bin/nothing-like-this"],
    ["/bin/sh", "-c", "sleep 600 & echo parent gone"],
)

PROBE = """
mknod /dev/sdx b 8 0 2>/dev/null && dd if=/dev/sdx of=/dev/null bs=512 count=1 2>/dev/null && echo DISK
mknod /disk b 8 0 2>/dev/null && dd if=/disk of=/dev/null bs=512 count=1 2>/dev/null && echo DISK
ls -d /dev/dm-* /dev/mapper /dev/sda /dev/vsock /run/parma /run/gcs 2>/dev/null && echo NODES
echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo SYSCTL
echo b > /proc/sysrq-trigger 2>/dev/null && echo SYSRQ
cat /proc/kcore 2>/dev/null | head -c 1 | grep -q . && echo KCORE
mkdir /m && mount -t proc proc /m 2>/dev/null && echo MOUNT
touch /sys/fs/cgroup/x 2>/dev/null && echo CGROUP
cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc | grep -c '^[0-9]'
ls /sys/class/net; grep CapEff /proc/self/status; cat /late 2>/dev/null; echo done
"""
"""What a container must not be able to do; each line prints a word when it can."""

COMMANDS = {
    "script": ["/bin/sh", "-c", "id -u; cat /layer; ls -d /tmp; hostname; cat /sys/class/net/lo/operstate; exit 3"],
    "sleep": ["/bin/sleep", "1000"],
    "cat": ["/bin/cat"],
    "flood": ["/bin/sh", "-c", "head -c 3000000 /dev/zero; echo end >&2"],
    "missing": ["/bin/there-is-no-such-program"],
    "quiet": ["/bin/sh", "-c", "head -c 1000000 /dev/zero; exit 5"],
    "tty": ["/bin/sh", "-c", "tty; stty size; read x; echo got $x"],
    "probe": [
        "/bin/sh",
        "-c",
        PROBE,
    ],
}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[LayerImage, LayerImage, Path]:
    directory = tmp_path_factory.mktemp("layers")
    base = vm.write_layer(directory / "base", vm.layer_tar({"layer": b"base\n", "hidden": b"x"}, busybox=True))
    top = vm.write_erofs_layer(directory / "top", vm.layer_tar({"layer": b"top\n", ".wh.hidden": b""}))
    with (directory / "scratch").open("wb") as scratch:
        os.truncate(scratch.fileno(), 256 << 20)
    return base, top, directory


@pytest.fixture(scope="module")
def guest(layers: tuple[LayerImage, LayerImage, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[vm.Guest]:
    base, top, directory = layers
    containers = [
        vm.container_object(
            [base, top],
            command,
            allow_stdio_access=name != "quiet",
            exec_processes=[{"command": command, "signals": [9, 15]} for command in EXECS],
        )
        for name, command in COMMANDS.items()
    ]
    disks = [directory / "base", directory / "top"]
    with vm.running(tmp_path_factory.mktemp("vm"), disks, writable=[directory / "scratch"]) as guest:
        with pytest.raises(FailedPrecondition, match="no execution policy"):
            guest.mount_layer(BASE_LUN, base)
        guest.set_policy(vm.policy_text(*containers))
        guest.mount_layer(BASE_LUN, base)
        guest.mount_layer(TOP_LUN, top)
        yield guest


@pytest.fixture
def container(guest: vm.Guest, request: pytest.FixtureRequest) -> str:
    """A fresh container id with scratch and overlay."""
    number = getattr(guest, "containers", 0) + 1
    guest.containers = number  # type: ignore[attr-defined]
    name = f"{number:064x}"
    make_rootfs(guest, name)
    return name


def make_rootfs(guest: vm.Guest, name: str, lun: int | None = None) -> None:
    scratch = pb.MountScratchRequest(container_id=name)
    if lun is None:
        scratch.memory_bytes = 16 << 20
    else:
        scratch.lun = lun
    guest.call("MountScratch", scratch)
    targets = [f"/run/mounts/scsi/m{TOP_LUN}", f"/run/mounts/scsi/m{BASE_LUN}"]
    guest.call("MountOverlay", pb.MountOverlayRequest(container_id=name, layer_targets=targets))


def remove(guest: vm.Guest, name: str) -> None:
    guest.call("DeleteContainer", pb.DeleteContainerRequest(container_id=name))
    guest.call("UnmountOverlay", pb.UnmountOverlayRequest(container_id=name))
    guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=name))


def kill(
    guest: vm.Guest, name: str, number: int = signal.SIGKILL, exec_id: str = "", *, everyone: bool = False
) -> None:
    request = pb.SignalProcessRequest(container_id=name, exec_id=exec_id, signal=number, all=everyone)
    guest.call("SignalProcess", request)


def execute(guest: vm.Guest, name: str, exec_id: str, args: list[str], **changes: object) -> None:
    request = pb.ExecProcessRequest(container_id=name, exec_id=exec_id, process=vm.process(args, **changes))
    guest.call("ExecProcess", request)


def test_hello_tells_the_tee_and_boot_phases_in_order(guest: vm.Guest) -> None:
    hello = guest.call("Hello", pb.HelloRequest())
    assert hello.tee == "none"
    assert [phase.name for phase in hello.phases] == ["kernel", "userspace", "python", "modules", "ready"]
    times = [phase.uptime_us for phase in hello.phases]
    assert times == sorted(times)
    assert times[0] > 0


def test_a_container_runs_from_layers_and_encrypted_scratch_to_its_exit_code(guest: vm.Guest) -> None:
    name = "e" * 64
    make_rootfs(guest, name, SCRATCH_LUN)
    guest.create(COMMANDS["script"], name, hostname="box-1")
    guest.start(name)
    assert guest.read_all(name) == b"0\ntop\n/tmp\nbox-1\nunknown\n"
    assert guest.read_all(name, pb.STDERR) == b""
    assert guest.wait(name) == 3
    remove(guest, name)
    with pytest.raises(NotFound):
        guest.wait(name)


def test_the_policy_decides_about_the_command(guest: vm.Guest, container: str) -> None:
    with pytest.raises(Denied, match="create_container denied: "):
        guest.create(["/bin/sh", "-c", "echo something else"], container)
    guest.create(COMMANDS["sleep"], container)  # the denial changed nothing
    kill(guest, container)
    assert guest.wait(container) == 137
    remove(guest, container)


def test_a_program_that_is_not_there_fails_at_create_and_can_be_cleaned_up(guest: vm.Guest, container: str) -> None:
    with pytest.raises(ParmaError, match="there-is-no-such-program"):
        guest.create(COMMANDS["missing"], container)
    guest.create(COMMANDS["sleep"], container)
    remove(guest, container)  # never started


def test_a_created_container_can_be_killed_before_it_starts(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["sleep"], container)
    kill(guest, container)
    assert guest.wait(container) == 137
    with pytest.raises(FailedPrecondition):
        guest.start(container)
    remove(guest, container)


def test_signals_reach_the_process_and_only_allowed_ones(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["cat"], container, stdin=True)
    guest.start(container)
    with pytest.raises(Denied, match="signal_container_process denied"):
        kill(guest, container, signal.SIGUSR1)
    kill(guest, container, signal.SIGKILL, everyone=True)
    assert guest.wait(container) == 137
    with pytest.raises(NotFound):
        kill(guest, container)
    remove(guest, container)


def test_stdin_reaches_the_process_and_its_end_too(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["cat"], container, stdin=True)
    guest.start(container)
    stdin = guest.stream(container, pb.STDIN)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(guest.read_all(container)))
    reader.start()
    sent = bytes(range(256)) * 500
    outstanding = 0
    for offset in range(0, len(sent), 16_000):
        piece = sent[offset : offset + 16_000]
        while outstanding + len(piece) > STREAM_WINDOW:
            frame = stdin.recv(60)
            assert frame is not None
            outstanding -= frame.window_update
        stdin.send(pb.StreamFrame(data=piece))
        outstanding += len(piece)
    stdin.send(pb.StreamFrame(eof=True))
    reader.join(60)
    assert received == [sent]
    assert guest.wait(container) == 0
    remove(guest, container)


def test_output_is_complete_and_waits_for_a_slow_reader(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["flood"], container)
    guest.start(container)
    stalled = guest.stream(container, pb.STDOUT)
    first = 0
    while first < STREAM_WINDOW:
        frame = stalled.recv(60)
        assert frame is not None
        first += len(frame.data)
    with pytest.raises(Exception, match=r"(?i)deadline|time"):
        stalled.recv(0.5)  # not a byte more than the window
    assert len(guest.call("Hello", pb.HelloRequest()).phases) == 5  # and nobody else is held up
    total = first
    stalled.send(pb.StreamFrame(window_update=first))
    pending = 0
    while (frame := stalled.recv(60)) is not None and not frame.eof:
        total += len(frame.data)
        pending += len(frame.data)
        if pending >= 16_000:
            stalled.send(pb.StreamFrame(window_update=pending))
            pending = 0
    assert total == 3_000_000
    assert guest.read_all(container, pb.STDERR) == b"end\n"
    assert guest.wait(container) == 0
    remove(guest, container)


def test_denied_stdio_is_null_inside_and_ends_at_once_outside(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["quiet"], container)
    began = time.monotonic()
    assert guest.read_all(container) == b""
    assert time.monotonic() - began < 30
    guest.start(container)
    assert guest.wait(container) == 5  # a megabyte of output blocked nobody
    remove(guest, container)


def test_a_terminal_works_with_size_and_input(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["tty"], container, terminal=True, stdin=True, console_width=90, console_height=30)
    size = pb.ResizePtyRequest(container_id=container, width=101, height=37)
    guest.call("ResizePty", size)
    guest.start(container)
    stdin = guest.stream(container, pb.STDIN)
    stdin.send(pb.StreamFrame(data=b"hello\n"))
    output = guest.read_all(container)
    assert b"/dev/pts/0" in output or b"/dev/console" in output
    assert b"37 101" in output
    assert b"got hello" in output
    assert guest.wait(container) == 0
    remove(guest, container)


def test_exec_runs_what_the_policy_lists_and_nothing_else(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["sleep"], container)
    with pytest.raises(FailedPrecondition, match="not been started"):
        execute(guest, container, "early", ["/bin/echo", "from exec"])
    guest.start(container)
    with pytest.raises(Denied, match="exec_in_container denied"):
        execute(guest, container, "evil", ["/bin/sh"])
    execute(guest, container, "one", ["/bin/echo", "from exec"])
    assert guest.read_all(container, exec_id="one") == b"from exec\n"
    assert guest.wait(container, "one") == 0
    execute(guest, container, "two", ["/bin/sh", "-c", "exit 7"])
    assert guest.wait(container, "two") == 7
    with pytest.raises(AlreadyExists):
        execute(guest, container, "two", ["/bin/sh", "-c", "exit 7"])
    guest.call("DeleteProcess", pb.DeleteProcessRequest(container_id=container, exec_id="two"))
    with pytest.raises(AlreadyExists):
        execute(guest, container, "two", ["/bin/sh", "-c", "exit 7"])
    with pytest.raises(ParmaError, match="nothing-like-this"):
        execute(guest, container, "absent", ["/bin/nothing-like-this"])
    execute(guest, container, "sleeper", ["/bin/sleep", "1000"])
    kill(guest, container, signal.SIGTERM, "sleeper")
    assert guest.wait(container, "sleeper") == 143
    kill(guest, container)
    assert guest.wait(container) == 137
    with pytest.raises(FailedPrecondition, match="stopped"):
        execute(guest, container, "late", ["/bin/echo", "from exec"])
    remove(guest, container)


def test_a_daemonised_grandchild_holds_the_stream_for_a_bounded_time(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["sleep"], container)
    guest.start(container)
    began = time.monotonic()
    execute(guest, container, "daemon", ["/bin/sh", "-c", "sleep 600 & echo parent gone"])
    assert guest.read_all(container, exec_id="daemon") == b"parent gone\n"
    assert 4 < time.monotonic() - began < 60
    kill(guest, container)
    guest.wait(container)
    remove(guest, container)


def test_processes_statistics_pause_and_limits(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["sleep"], container, resources=pb.Resources(memory_limit=48 << 20, pids_limit=20))
    guest.start(container)
    execute(guest, container, "other", ["/bin/sleep", "1000"])
    rows = guest.call("ListProcesses", pb.ListProcessesRequest(container_id=container)).processes
    assert sorted((row.exec_id, row.init) for row in rows) == [("", True), ("other", False)]
    stats = guest.call("Stats", pb.StatsRequest(container_id=container))
    assert stats.memory_limit == 48 << 20
    assert stats.pids_limit == 20
    assert stats.pids_current == 2
    assert stats.memory_usage > 0
    assert stats.cpu_usage_us > 0
    guest.call("PauseContainer", pb.PauseContainerRequest(container_id=container))
    guest.call("ResumeContainer", pb.ResumeContainerRequest(container_id=container))
    change = pb.UpdateResourcesRequest(container_id=container, resources=pb.Resources(memory_limit=40 << 20))
    guest.call("UpdateResources", change)
    assert guest.call("Stats", pb.StatsRequest(container_id=container)).memory_limit == 40 << 20
    kill(guest, container)
    guest.wait(container)
    assert guest.wait(container, "other") == 137
    remove(guest, container)


def test_a_container_cannot_reach_out(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["probe"], container)
    guest.start(container)
    output = guest.read_all(container).decode()
    guest.wait(container)
    lines = output.splitlines()
    for word in ("DISK", "NODES", "SYSCTL", "SYSRQ", "KCORE", "MOUNT", "CGROUP"):
        assert word not in lines
    assert lines[0].startswith("/bin/sh -c ")  # its own process 1
    assert "lo" in lines
    assert "CapEff:\t00000000a80425fb" in lines
    assert lines[-1] == "done"
    remove(guest, container)


def test_what_is_in_use_cannot_be_unmounted(guest: vm.Guest, container: str) -> None:
    guest.create(COMMANDS["sleep"], container)
    with pytest.raises(Denied, match="is a layer of container"):
        guest.call("UnmountDevice", pb.UnmountDeviceRequest(target=f"/run/mounts/scsi/m{BASE_LUN}"))
    with pytest.raises(Denied, match="was not shut down"):
        guest.call("UnmountOverlay", pb.UnmountOverlayRequest(container_id=container))
    with pytest.raises(FailedPrecondition, match="in use"):
        guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=container))
    remove(guest, container)


def test_a_layer_that_the_policy_does_not_list_is_denied(guest: vm.Guest, layers: tuple[LayerImage, ...]) -> None:
    request = pb.MountDeviceRequest(lun=BASE_LUN, target="/run/mounts/scsi/m9", device_hash="ab" * 32, data_blocks=1)
    with pytest.raises(Denied, match="mount_device denied"):
        guest.call("MountDevice", request)


def test_a_second_policy_and_unknown_fields_are_refused(guest: vm.Guest) -> None:
    with pytest.raises(FailedPrecondition, match="already"):
        guest.call("PutPolicy", pb.PutPolicyRequest(data=b"package policy"))
    request = pb.StatsRequest.FromString(b"\x0a\x02ab\xf2\x07\x01x")
    with pytest.raises(Malformed, match="does not know"):
        guest.call("Stats", request)


def test_the_console_stays_silent(guest: vm.Guest) -> None:
    assert guest.console().split() == ["parma:", "ready"]
