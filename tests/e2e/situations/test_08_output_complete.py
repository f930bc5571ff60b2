# SPDX-License-Identifier: Apache-2.0
"""Much output, and nobody who reads it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.client import Containerd
from tests.e2e.crashes import shim
from tests.e2e.host import Host, wait_until

pytestmark = pytest.mark.e2e


def resident_kib(pid: int) -> int:
    """RSS."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


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
    (pid,) = shim(own_host)

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
    assert resident_kib(pid) < before + 2048
    text = " ".join(map(str, range(1, 1_000_001))) + "\r\n"
    assert found == [hashlib.sha256(text.encode()).hexdigest()] * OUTPUTS
    client.close()
    own_host.remove(name)


def test_output_that_nobody_reads_stops_only_itself(own_host: Host, name: str) -> None:
    command = ("/bin/yes",)
    policy = own_host.policy(command, execs=[("/bin/echo", "hello")])
    arguments = own_host.run_arguments(name, command, "--rm", policy=policy)
    with own_host.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        wait_until(lambda: own_host.status(name) == "RUNNING", "the container to run")
        (pid,) = shim(own_host)
        assert own_host.exec(name, "e1", "/bin/echo", "hello").stdout == "hello\n"
        before = resident_kib(pid)
        for number in range(5):
            assert own_host.exec(name, f"more{number}", "/bin/echo", "hello").stdout == "hello\n"
        assert resident_kib(pid) < before + 2048
        assert own_host.daemon.ctr("task", "kill", "--signal", "SIGKILL", name).returncode == 0
        wait_until(lambda: own_host.status(name) != "RUNNING", "the container to end")
        process.kill()
        process.communicate()
    own_host.remove(name)
