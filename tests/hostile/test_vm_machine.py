# SPDX-License-Identifier: Apache-2.0
"""What the host does to the machine itself, and what ends or poisons a guest. Each has its own VM."""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from parma_image.cpio import Tree, archive
from parma_wire import guest_pb2 as pb
from parma_wire.errors import FailedPrecondition, ParmaError, Unavailable
from parma_wire.limits import READY_LINE
from tests.guest import vm_harness as vm
from tests.hostile import stage as stages
from tests.hostile.stage import SHARED, SLEEP

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

SECRET = "hunter2-correct-horse"


def test_R18_a_scratch_disk_that_cannot_be_taken_away_poisons_the_group(tmp_path: Path) -> None:
    with stages.running(tmp_path) as stage:
        guest, first = stage.guest, stage.new_id()
        stage.make_rootfs(first, "base", scratch_lun=stage.scratch_lun)
        source = f"/run/gcs/c/{first}/sandboxMounts{SHARED}/v"
        mount = pb.Mount(destination="/shared", type="bind", source=source, options=["rbind", "rw"])
        guest.create(SLEEP, first, sandbox_container=True)
        other = stage.new_id()
        stage.make_rootfs(other, "base")
        guest.create(SLEEP, other, mounts=[mount])  # stands on the first one's scratch space from here on
        guest.start(other)
        guest.call("DeleteContainer", pb.DeleteContainerRequest(container_id=first))
        guest.call("UnmountOverlay", pb.UnmountOverlayRequest(container_id=first))
        with pytest.raises(Unavailable):
            guest.call("UnmountScratch", pb.UnmountScratchRequest(container_id=first))
        for attempt in (
            lambda: stage.start_exec(other, "hello"),
            lambda: stage.make_rootfs(stage.new_id(), "base"),
            lambda: guest.mount_layer(stage.luns["victim"], stage.images["victim"]),
            lambda: stage.signal(other),
        ):
            with pytest.raises(FailedPrecondition, match="no more changes"):
                attempt()
        guest.call("Stats", pb.StatsRequest(container_id=other))  # looking is still possible
        guest.call("PowerOff", pb.PowerOffRequest())
        assert guest.qemu.wait(60) == 0


def test_R26_a_guest_for_a_secure_processor_ends_where_there_is_none(tmp_path: Path) -> None:
    with vm.boot(tmp_path, tee="snp") as guest:
        guest.qemu.wait(vm.BOOT_TIMEOUT)
        assert READY_LINE not in guest.console()
        assert "the enforcer ended (Unverified at tee.py:" in guest.console()


def test_R55_the_console_takes_nothing_and_says_nothing(tmp_path: Path) -> None:
    import socket

    with vm.running(tmp_path) as guest, guest.monitor() as monitor, socket.socket(socket.AF_UNIX) as console:
        console.connect(str(tmp_path / "console"))
        deadline = time.monotonic() + 60
        for keys in (b"root\n\n", b"\x03\x1a\x1c", b"import os\n", b"\x01c"):
            console.sendall(keys)
        for command in b"hbcptmw9":  # help, boot, crash, registers, tasks, memory, blocked tasks, log level
            monitor.execute("chardev-send-break", {"id": "console"}, deadline=deadline)
            console.sendall(bytes([command]))
        assert guest.call("Hello", pb.HelloRequest()).tee == "none"
        # The line discipline echoes keys, and ^@ for a break; nobody else says anything.
        said = re.sub(r"\^.", "", guest.console().partition(READY_LINE)[2])
        assert Counter(filter(str.isalnum, said)) <= Counter("root" + "importos" + "c" + "hbcptmw9")


def test_R57_the_death_of_the_enforcer_ends_the_vm_and_tells_no_secret(tmp_path: Path) -> None:
    tree = Tree()
    source = f'secret = "{SECRET}"\nraise RuntimeError(f"a bug, and {{secret}}")\n'
    tree.file("usr/lib/parma/parma_policy/framework/__init__.py", source.encode())  # found before what is there
    with (tmp_path / "initrd").open("wb") as file:
        file.write(archive(tree))
        file.write((vm.IMAGE / "initrd.img").read_bytes())
    with vm.boot(tmp_path / "vm", initrd=tmp_path / "initrd") as guest:
        assert guest.qemu.wait(vm.BOOT_TIMEOUT) == 0  # powered off, not crashed
        console = guest.console()
    assert "parma: the enforcer ended (RuntimeError at __init__.py:2); power off" in console
    assert SECRET not in console
    assert "Traceback" not in console


def test_R65_a_clock_that_is_wrong_by_decades_changes_no_decision(tmp_path: Path) -> None:
    from parma_policy.signed.authoring import fragment_rule
    from tests.cose.chains import authority, shared_authority
    from tests.guest.test_vm_fragments import COMMAND, fragment

    layer = vm.write_layer(tmp_path / "base", vm.layer_tar({}, busybox=True))
    container = vm.container_object([layer], COMMAND)
    good = fragment(container, 2, shared_authority())
    clock = ("-rtc", "base=1999-01-01T00:00:00")
    with vm.running(tmp_path / "vm", [tmp_path / "base"], extra=clock) as guest:
        guest.set_policy(vm.policy_text(fragments=[fragment_rule(good)]))
        with pytest.raises(ParmaError):
            guest.load_fragment(fragment(container, 2, authority()))
        guest.load_fragment(good)
        guest.prepare([(0, layer)])
        guest.create(COMMAND)
        guest.start()
        assert guest.wait() == 3


def test_R70_a_reset_ends_the_vm_or_all_that_it_knew(tmp_path: Path) -> None:
    with vm.running(tmp_path) as guest, guest.monitor() as monitor:
        guest.set_policy(vm.policy_text())
        with pytest.raises(FailedPrecondition, match="already"):
            guest.set_policy(vm.policy_text())
        # Without the shim's -no-reboot the machine starts again: another life, before its policy.
        deadline = time.monotonic() + 240
        monitor.execute("set-action", {"reboot": "reset"}, deadline=deadline)
        monitor.execute("system_reset", deadline=deadline)
        while guest.console().count(READY_LINE) < 2:
            assert time.monotonic() < deadline, guest.console()
            time.sleep(0.1)
        guest.clients.insert(0, guest.connect())
        with pytest.raises(FailedPrecondition, match="no execution policy"):
            guest.call("MountScratch", pb.MountScratchRequest(container_id=vm.CONTAINER, memory_bytes=16 << 20))
        guest.set_policy(vm.policy_text())
        # With it, as everywhere but here, it ends.
        monitor.execute("set-action", {"reboot": "shutdown"}, deadline=deadline)
        with suppress(ParmaError):
            monitor.execute("system_reset", deadline=deadline)
        guest.qemu.wait(60)
