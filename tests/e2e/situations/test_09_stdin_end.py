# SPDX-License-Identifier: Apache-2.0
"""stdin's end: not before the data, not too late, not because a client went away, and at once where there is none."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from tests.e2e import tasks_pb2 as pb
from tests.e2e.situations.conftest import DIGEST, SHELL, Vm

pytestmark = pytest.mark.e2e

SIZE = 4 << 20


def close_input(vm: Vm, exec_id: str) -> None:
    request = pb.CloseIORequest(container_id=vm.name, exec_id=exec_id, stdin=True)
    vm.client.send("CloseIO", request, Empty).result()


def test_megabytes_arrive_before_their_end(vm: Vm) -> None:
    data = os.urandom(SIZE)
    done = vm.host.exec(vm.name, vm.fresh(), *DIGEST, stdin=data)
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_an_end_told_before_the_start_does_not_overtake_the_data_and_a_second_one_is_harmless(
    vm: Vm, tmp_path: Path
) -> None:
    fifos = {name: tmp_path / name for name in ("in", "out")}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    exec_id, found = vm.fresh(), list[bytes]()
    reader = threading.Thread(target=lambda: found.append(fifos["out"].read_bytes()))
    reader.start()
    writer = os.open(fifos["in"], os.O_RDWR)
    try:
        vm.client.add_exec(vm.name, exec_id, DIGEST, stdin=str(fifos["in"]), stdout=str(fifos["out"]))
        os.write(writer, b"all of it")
        close_input(vm, exec_id)
        vm.client.start(vm.name, exec_id)
        close_input(vm, exec_id)
        assert vm.client.wait(vm.name, exec_id) == 0
    finally:
        os.close(writer)
    assert vm.client.delete(vm.name, exec_id) == 0
    reader.join(30)
    assert found[0].split()[0].decode() == hashlib.sha256(b"all of it").hexdigest()


def test_a_client_that_goes_away_is_no_end(vm: Vm, tmp_path: Path) -> None:
    fifo, exec_id = tmp_path / "in", vm.fresh()
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDWR)
    vm.client.add_exec(vm.name, exec_id, SHELL, stdin=str(fifo))
    vm.client.start(vm.name, exec_id)
    os.close(first)
    second = os.open(fifo, os.O_WRONLY)  # waits until there is a reader
    os.write(second, b"exit 23\n")
    assert vm.client.wait(vm.name, exec_id) == 23
    os.close(second)
    assert vm.client.delete(vm.name, exec_id) == 23


def test_an_exec_without_stdin_sees_the_end_at_once(vm: Vm) -> None:
    exec_id = vm.fresh()
    vm.client.add_exec(vm.name, exec_id, SHELL)
    vm.client.start(vm.name, exec_id)
    assert vm.client.wait(vm.name, exec_id) == 0
    assert vm.client.delete(vm.name, exec_id) == 0
