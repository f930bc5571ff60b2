# SPDX-License-Identifier: Apache-2.0
"""Much output, and nobody who reads it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.e2e.crashes import shim
from tests.e2e.host import Host, read_terminal, wait_until

pytestmark = pytest.mark.e2e


def resident_kib(pid: int) -> int:
    """RSS."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


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


def test_megabytes_over_a_terminal_arrive_to_the_last_line(host_21: Host, name: str) -> None:
    lines = 400_000
    script = f"yes 0123456789abcdef | head -n {lines}; echo the end"
    arguments = host_21.run_arguments(name, ("/bin/sh", "-c", script), "--rm", "--tty")
    master, slave = pty.openpty()
    with subprocess.Popen(
        host_21.daemon.command(*arguments),
        env=host_21.daemon.environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as process:
        os.close(slave)
        size, tail = 0, b""
        while chunk := read_terminal(master):
            size += len(chunk.replace(b"\r", b""))
            tail = (tail + chunk)[-64:]
        assert process.wait(30) == 0
    os.close(master)
    # Carriage returns are added by the guest's terminal, and by ctr's own.
    assert size == lines * 17 + len(b"the end\n")
    assert tail.endswith(b"the end\r\r\n")
