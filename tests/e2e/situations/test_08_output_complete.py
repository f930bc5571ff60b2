# SPDX-License-Identifier: Apache-2.0
"""Output is complete: much of it, and that of processes that end at once."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.client import Containerd
from tests.e2e.crashes import lone_shim, resident_kib
from tests.e2e.host import Host, wait_until
from tests.e2e.situations.conftest import ECHO, Vm

pytestmark = pytest.mark.e2e


SEQUENCE = ("/bin/sh", "-c", "seq -s ' ' 1000000 > /tmp/big; echo made")
SHOW = ("/bin/cat", "/tmp/big")
OUTPUTS = int(os.environ.get("PARMA_TTY_OUTPUTS", "4"))
"""How many times 7 MB go over a terminal. containerd's own suite does it 100 times: PARMA_TTY_OUTPUTS=100."""

AT_ONCE = 2


def read_fifo(path: Path, found: list[str]) -> None:
    """To its end; keeps a digest, not the bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as fifo:
        while piece := fifo.read(1 << 16):
            digest.update(piece)
    found.append(digest.hexdigest())


@pytest.mark.timeout(240 + 60 * OUTPUTS)
def test_seven_megabytes_over_a_terminal_arrive_whole_again_and_again(
    own_host: Host, name: str, tmp_path: Path
) -> None:
    command = ("/bin/sleep", "6000")
    policy = own_host.policy(command, execs=[SEQUENCE, SHOW])
    assert own_host.run(name, command, "--detach", policy=policy).returncode == 0
    assert own_host.exec(name, "make", *SEQUENCE).stdout == "made\n"
    client = Containerd(own_host)
    found: list[str] = []
    pid = lone_shim(own_host)

    def show(number: int) -> None:
        fifo = tmp_path / f"fifo{number}"
        os.mkfifo(fifo)
        reader = threading.Thread(target=read_fifo, args=(fifo, found))
        reader.start()
        client.add_exec(name, f"e{number}", SHOW, terminal=True, stdout=str(fifo))
        client.start(name, f"e{number}")
        assert client.wait(name, f"e{number}") == 0
        reader.join(60)
        assert client.delete(name, f"e{number}") == 0

    show(0)
    before = resident_kib(pid)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(show, range(1, OUTPUTS)))
    # What is free goes back to the system when the shim next looks for it.
    wait_until(lambda: resident_kib(pid) < before + 2048, "the shim to be as small as before")
    text = " ".join(map(str, range(1, 1_000_001))) + "\r\n"
    assert found == [hashlib.sha256(text.encode()).hexdigest()] * OUTPUTS
    client.close()
    own_host.remove(name)


ECHOES = int(os.environ.get("PARMA_ECHOES", "40"))
"""Processes that write one line and end. The long form: PARMA_ECHOES=1000."""


@pytest.mark.timeout(120 + ECHOES)
def test_the_line_of_a_process_that_ends_at_once_is_never_lost(vm: Vm, tmp_path: Path) -> None:
    def echo(number: int) -> bytes:
        fifo = tmp_path / f"echo{number}"
        os.mkfifo(fifo)
        exec_id = vm.fresh()
        with ThreadPoolExecutor(1) as reader:
            read = reader.submit(fifo.read_bytes)
            vm.client.add_exec(vm.name, exec_id, ECHO, stdout=str(fifo))
            vm.client.start(vm.name, exec_id)
            assert vm.client.wait(vm.name, exec_id) == 0
            # All of it is there when the exit is told: Delete is what may cut the rest off.
            vm.client.delete(vm.name, exec_id)
            return read.result(60)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(echo, range(ECHOES))) == [b"a line\n"] * ECHOES
