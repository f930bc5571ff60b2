# SPDX-License-Identifier: Apache-2.0
"""Sizes, scratch files, bounded logs, boot times."""

from __future__ import annotations

import fcntl
import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parma_shim.config import Config
from parma_shim.guest import BootPhase, Greeting
from parma_shim.task.ports import ContainerSpec
from parma_shim.vm import console, disks
from parma_shim.vm.recipe import Place, launch_spec
from parma_shim.vm.session import timings
from parma_shim.vm.sizing import OVERHEAD_MIB, size_of
from parma_wire.errors import NotFound, Unavailable
from tests.vm.support import image

MIB = 1 << 20


def size(oci: dict[str, Any], *, extra_mib: int = 0, shapes: tuple[int, ...] = (1, 2, 4)) -> tuple[int, int]:
    return size_of(oci, default_vcpus=1, default_memory_mib=512, extra_mib=extra_mib, shapes=shapes)


def limits(memory: int = 0, quota: int = 0, period: int = 0) -> dict[str, Any]:
    return {"linux": {"resources": {"memory": {"limit": memory}, "cpu": {"quota": quota, "period": period}}}}


def pod(**cpu: str) -> dict[str, Any]:
    return {"annotations": {f"io.kubernetes.cri.sandbox-cpu-{name}": value for name, value in cpu.items()}}


@pytest.mark.parametrize(
    ("oci", "expected"),
    [
        ({}, (1, 512)),
        ({"linux": {"resources": None}}, (1, 512)),
        (limits(memory=1024 * MIB), (1, 1024 + OVERHEAD_MIB)),
        (limits(memory=100 * MIB + 1), (1, 384)),
        (limits(memory=-1, quota=-1), (1, 512)),
        (limits(quota=150_000, period=100_000), (2, 512)),
        (limits(quota=250_000, period=100_000), (4, 512)),
        (limits(quota=900_000, period=100_000), (4, 512)),
        (
            {
                "annotations": {
                    "io.kubernetes.cri.sandbox-memory": str(2048 * MIB),
                    "io.kubernetes.cri.sandbox-cpu-quota": "200000",
                    "io.kubernetes.cri.sandbox-cpu-period": "100000",
                },
                **limits(memory=64 * MIB),
            },
            (2, 2048 + OVERHEAD_MIB),
        ),
        ({"annotations": {"io.kubernetes.cri.sandbox-memory": "junk"}}, (1, 512)),
        (pod(shares="1500"), (2, 512)),  # what a pod without a limit asks for at least
        (pod(shares="2"), (1, 512)),
        (pod(shares="4096", quota="100000", period="100000"), (1, 512)),
        (pod(shares="-1", quota="-1"), (1, 512)),
    ],
)
def test_limits_become_a_size(oci: dict[str, Any], expected: tuple[int, int]) -> None:
    assert size(oci) == expected


def test_a_writable_layer_in_memory_is_added() -> None:
    assert size({}, extra_mib=100) == (1, 640)


def test_without_published_measurements_the_usual_shapes_count() -> None:
    assert size(limits(quota=300_000, period=100_000), shapes=()) == (4, 512)


def test_scratch_space_is_sparse_and_has_no_name(tmp_path: Path) -> None:
    fd = disks.open_scratch(tmp_path / "scratch", 1 << 40)
    assert os.fstat(fd).st_size == 1 << 40
    assert os.fstat(fd).st_blocks < 100
    assert os.fstat(fd).st_nlink == 0
    assert list((tmp_path / "scratch").iterdir()) == []
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def test_a_full_disk_is_said_before_a_guest_runs_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = SimpleNamespace(f_bavail=10, f_frsize=MIB)
    monkeypatch.setattr(os, "statvfs", lambda _path: nearly_full)
    os.close(disks.open_scratch(tmp_path, 10 * MIB))
    with pytest.raises(Unavailable, match="the disk is full; expected 64 MiB free, not 10"):
        disks.open_scratch(tmp_path, 1 << 30)


class Monitor:
    """Remembers commands."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []

    def execute(self, command: str, arguments: dict[str, Any], **_options: object) -> None:
        self.commands.append((command, arguments))


@pytest.mark.parametrize("readonly", [True, False])
def test_a_write_that_fails_is_the_guests_to_know(tmp_path: Path, readonly: bool) -> None:
    """QEMU would stop the VM when the host's disk is full, and nobody would learn why nothing goes on."""
    monitor = Monitor()
    fd = os.open(tmp_path, os.O_RDONLY)
    disks.Disks(monitor).attach(fd, readonly=readonly, deadline=0)  # type: ignore[arg-type]
    os.close(fd)
    (device,) = (arguments for command, arguments in monitor.commands if command == "device_add")
    assert device.get("werror") == (None if readonly else "report")


def test_scratch_space_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="scratch"):
        disks.open_scratch(tmp_path / "file" / "scratch", MIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(Unavailable, match=r"scratch.*too large"):
            disks.open_scratch(tmp_path, 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_missing_layer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"x\.img"):
        disks.open_readonly(tmp_path / "x.img")


def make_log(tmp_path: Path) -> tuple[console.BoundedLog, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return console.BoundedLog(reader, tmp_path / "console.log"), writer


def test_what_came_before_the_awaited_text_is_not_among_the_last_words(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = console.BoundedLog(reader, tmp_path / "console.log", awaited=b"ready")
    os.write(writer, b"\x1bc\x1b[?7l\x1b[2JBooting from ROM...\n")
    log.pump()
    assert log.tail_lines(2) == ["Booting from ROM..."]
    os.write(writer, b"ready\r\n")
    log.pump()
    assert log.tail_lines(2) == []
    os.write(writer, b"panic\n")
    log.pump()
    assert log.tail_lines(2) == ["panic"]
    os.close(writer)
    log.close()


def test_a_log_is_copied_and_its_last_lines_are_kept(tmp_path: Path) -> None:
    log, writer = make_log(tmp_path)
    os.write(writer, b"first\r\n\x1b[31mred\x07\n\nlast \xff\n")
    os.close(writer)
    log.drain()
    assert (tmp_path / "console.log").read_bytes().startswith(b"first")
    assert log.tail_lines(2) == ["red", "last �"]
    assert log.first_byte is not None
    assert log.first_byte <= time.monotonic()
    log.close()


def test_a_log_never_grows_beyond_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MAX_FILE", 10_000)
    log, writer = make_log(tmp_path)
    for _ in range(20):
        os.write(writer, b"x" * 4000)
        assert log.pump()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"console.log", "console.log.1"}
    assert all(0 < size <= 10_000 for size in sizes.values())
    os.close(writer)
    log.close()


def test_a_flood_is_paused_until_the_next_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.5)
    log, writer = make_log(tmp_path)
    for _ in range(64):
        assert log.paused_until() is None
        os.write(writer, b"x" * 4096)
        log.pump()
    assert log.paused_until() == 1001.0
    monkeypatch.setattr(time, "monotonic", lambda: 1001.0)
    assert log.paused_until() is None
    os.close(writer)
    log.close()


def test_a_log_that_cannot_be_written_is_still_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = console.BoundedLog(reader, tmp_path / "gone" / "console.log")
    os.write(writer, b"hello\n")
    assert log.pump()
    assert log.tail_lines(1) == ["hello"]
    os.close(writer)
    assert not log.pump()
    log.close()


def test_boot_times_add_up_to_the_whole() -> None:
    greeting = Greeting("1", "none", (BootPhase("kernel", 300_000), BootPhase("ready", 900_000)))
    found = timings(greeting, began=10.0, launched=10.1, answered=11.5, accepted=11.6)
    assert found == {"qemu": 100.0, "firmware": 500.0, "kernel": 300.0, "ready": 600.0, "policy": 100.0}
    assert sum(found.values()) == 1600.0


def test_boot_times_of_a_guest_that_lies_are_not_negative() -> None:
    greeting = Greeting("1", "none", (BootPhase("kernel", 10**15), BootPhase("ready", 5)))
    assert min(timings(greeting, 0.0, 0.1, 0.2, 0.3).values()) >= 0


@pytest.mark.parametrize("placed", [True, False])
def test_the_shim_goes_to_the_vms_cgroup_unless_containerd_has_put_it_into_another(
    placed: bool, tmp_path: Path
) -> None:
    spec = ContainerSpec("c1", "0" * 64, tmp_path, {"linux": {"cgroupsPath": "/a/b"}}, terminal=False, stdin=False)
    place = Place("default", "c1", tmp_path / "vm", shim_is_placed=placed)
    made = launch_spec(Config(tee="emulated"), place, spec, image(tmp_path), b"package policy\n")
    assert (made.cgroups_path, made.shim_goes_there) == ("/a/b", not placed)
