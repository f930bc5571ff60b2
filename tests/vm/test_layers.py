# SPDX-License-Identifier: Apache-2.0
"""Layers in the guest: shared, counted, and given back when anything fails."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from parma_shim.vm import layers
from parma_shim.vm.layers import Layer, LayerJob, LayerTable, receive_layers
from parma_shim.vm.undo import Undo
from parma_wire.errors import DeadlineExceeded, Denied, Malformed, ParmaError, Unavailable
from tests.descriptors import descriptors
from tests.vm.support import soon

A, B = Layer("aa" * 32, 10, 100), Layer("bb" * 32, 20, 101)


class Recorder:
    """Stands for VM and guest alike; ``failing`` makes the named call raise."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, ParmaError] = {}
        self._next = 0

    def _call(self, name: str, what: object) -> None:
        self.calls.append(f"{name} {what}")
        if f"{name} {what}" in self.failing:
            raise self.failing[f"{name} {what}"]

    def attach_descriptor(self, fd: int, *, readonly: bool, deadline: float) -> int:
        assert readonly
        assert deadline > 0
        self._call("attach", fd)
        self._next += 1
        return self._next - 1

    def detach_disk(self, lun: int, *, deadline: float) -> None:
        assert deadline > 0
        self._call("detach", lun)

    def mount_device(
        self, lun: int, target: str, device_hash: str, data_blocks: int, *, deadline: float | None = None
    ) -> None:
        assert deadline is not None
        self._call("mount", f"{lun} {target[-2:]} {device_hash[:2]} {data_blocks}")

    def unmount_device(self, target: str, *, deadline: float | None = None) -> None:
        assert deadline is None
        self._call("unmount", target[-2:])


@pytest.fixture
def world() -> Recorder:
    return Recorder()


@pytest.fixture
def table(world: Recorder) -> LayerTable:
    return LayerTable(world, world, timeout=10)


def ignore(_line: str) -> None:
    pass


def test_layers_are_attached_and_mounted_in_order(world: Recorder, table: LayerTable) -> None:
    assert table.mount([A, B], Undo(), deadline=soon()) == ["/run/mounts/scsi/m0", "/run/mounts/scsi/m1"]
    assert world.calls == ["attach 100", "mount 0 m0 aa 10", "attach 101", "mount 1 m1 bb 20"]


def test_a_layer_of_two_containers_is_mounted_once_and_stays_until_both_are_gone(
    world: Recorder, table: LayerTable
) -> None:
    first, second = Undo(), Undo()
    table.mount([A], first, deadline=soon())
    assert table.mount([A, B], second, deadline=soon()) == ["/run/mounts/scsi/m0", "/run/mounts/scsi/m1"]
    world.calls.clear()
    assert first.run(ignore)
    assert world.calls == []
    assert second.run(ignore)
    assert world.calls == ["unmount m1", "detach 1", "unmount m0", "detach 0"]


def test_a_layer_that_an_image_has_twice_is_mounted_twice(table: LayerTable) -> None:
    targets = table.mount([A, B, A], Undo(), deadline=soon())
    assert len(set(targets)) == 3
    assert table.mount([A, A], Undo(), deadline=soon()) == [targets[0], targets[2]]


def test_a_mount_point_is_used_again_when_it_is_free(table: LayerTable) -> None:
    undo = Undo()
    table.mount([A], undo, deadline=soon())
    table.mount([B], Undo(), deadline=soon())
    undo.run(ignore)
    assert table.mount([A], Undo(), deadline=soon()) == ["/run/mounts/scsi/m0"]


def test_a_denied_layer_is_detached_and_those_before_it_are_given_back(world: Recorder, table: LayerTable) -> None:
    world.failing["mount 1 m1 bb 20"] = Denied("no such layer")
    undo = Undo()
    with pytest.raises(Denied):
        table.mount([A, B], undo, deadline=soon())
    undo.run(ignore)
    assert world.calls[4:] == ["detach 1", "unmount m0", "detach 0"]


def test_the_first_error_is_the_one_reported(world: Recorder, table: LayerTable) -> None:
    world.failing = {"mount 0 m0 aa 10": Denied("this"), "detach 0": Unavailable("that")}
    with pytest.raises(Denied, match="this"):
        table.mount([A], Undo(), deadline=soon())


def test_a_layer_that_the_guest_keeps_stays_attached(world: Recorder, table: LayerTable) -> None:
    world.failing["unmount m0"] = Unavailable("busy")
    undo = Undo()
    table.mount([A], undo, deadline=soon())
    log: list[str] = []
    assert undo.run(log.append)
    assert "busy" in log[0]
    assert "detach 0" not in world.calls
    assert table.mount([B], Undo(), deadline=soon()) == ["/run/mounts/scsi/m1"]


def test_undoing_stops_at_a_peer_that_does_not_answer() -> None:
    done: list[int] = []
    undo = Undo()
    undo.push("first", lambda: done.append(1))

    def stuck() -> None:
        raise DeadlineExceeded("nothing")

    undo.push("second", stuck)
    assert not undo.run(ignore)
    assert done == []


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def test_descriptors_are_paired_with_the_answer(tmp_path: Path) -> None:
    receiver, sender = pair()
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        with open(tmp_path / name, "rb") as file:
            socket.send_fds(sender, [b"\0"], [file.fileno()])
    entries = [{"root_hash": "aa" * 32, "data_blocks": 1}, {"root_hash": "bb" * 32, "data_blocks": 2}]
    layers = receive_layers(receiver, {"layers": entries})
    assert [(layer.root_hash[:2], os.pread(layer.fd, 10, 0)) for layer in layers] == [("aa", b"one"), ("bb", b"two")]
    for layer in layers:
        os.close(layer.fd)
    receiver.close()
    sender.close()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"layers": []},
        {"layers": [{"root_hash": "aa" * 32, "data_blocks": 1}] * 2},
        {"layers": [{"root_hash": "AA" * 32, "data_blocks": 1}]},
        {"layers": [{"root_hash": "aa" * 32, "data_blocks": 0}]},
        {"layers": [{"root_hash": 5, "data_blocks": 1}]},
        {"layers": 5},
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_its_files_are_closed(answer: dict[str, object]) -> None:
    receiver, sender = pair()
    socket.send_fds(sender, [b"\0"], [0])
    before = descriptors()
    with pytest.raises(Malformed):
        receive_layers(receiver, answer)
    assert descriptors() <= before
    receiver.close()
    sender.close()


def test_a_failing_helper_is_reported_at_once_and_leaves_nothing() -> None:
    before = descriptors()
    failed = threading.Event()
    request = {"address": "/nowhere/c.sock", "namespace": "default", "container_id": "c", "timeout": 5}
    job = LayerJob(Path(sys.executable), request, deadline=soon(30), on_failure=failed.set)
    assert failed.wait(30)
    with pytest.raises(ParmaError):
        job.layers(deadline=soon())
    assert job.error is not None
    job.close()
    job.close()
    assert descriptors() <= before


def test_closing_a_job_kills_a_helper_that_hangs(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    before = descriptors()
    job = LayerJob(python, {}, deadline=soon(600), on_failure=lambda: None)
    job.close()
    assert descriptors() <= before


def test_an_unexpected_error_is_told_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of descriptors")

    monkeypatch.setattr(layers, "receive_layers", broken)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat > /dev/null\necho '{}'\n")
    python.chmod(0o755)
    failed = threading.Event()
    job = LayerJob(python, {}, deadline=soon(30), on_failure=failed.set)
    assert failed.wait(30)
    with pytest.raises(Unavailable, match="RuntimeError: out of descriptors"):
        job.layers(deadline=soon())
    job.close()
