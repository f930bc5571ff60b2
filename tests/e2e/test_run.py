# SPDX-License-Identifier: Apache-2.0
"""``ctr run`` behaves as with runc. Tests with a ``runtime`` parameter make the same assertions of both."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess

import pytest

from devtool.containerd import RUNTIME
from tests.e2e.host import DEBIAN, RUNC, Host, read_terminal, wait_until

pytestmark = pytest.mark.e2e

RUNTIMES = pytest.mark.parametrize("runtime", [RUNC, RUNTIME], ids=["runc", "parma"])


def sh(script: str) -> tuple[str, str, str]:
    return ("/bin/sh", "-c", script)


@RUNTIMES
def test_output_and_exit_code_reach_the_client(host: Host, name: str, runtime: str) -> None:
    done = host.run(name, sh("echo to stdout; echo to stderr >&2; exit 3"), "--rm", runtime=runtime)
    assert (done.returncode, done.stdout, done.stderr) == (3, "to stdout\n", "to stderr\n")


@RUNTIMES
def test_a_container_that_succeeds_leaves_exit_code_0(host: Host, name: str, runtime: str) -> None:
    assert host.run(name, ("/bin/true",), "--rm", runtime=runtime).returncode == 0


@RUNTIMES
def test_a_killed_container_leaves_exit_code_137(host: Host, name: str, runtime: str) -> None:
    arguments = host.run_arguments(name, ("/bin/sleep", "600"), "--rm", runtime=runtime)
    with host.daemon.popen(*arguments, stdin=subprocess.DEVNULL) as process:
        wait_until(lambda: host.status(name) == "RUNNING", "the container to run")
        assert host.daemon.ctr("task", "kill", "--signal", "SIGKILL", name).returncode == 0
        assert process.wait(120) == 137


@RUNTIMES
def test_stdin_is_delivered_whole_and_ends(host: Host, name: str, runtime: str) -> None:
    data = os.urandom(1 << 20)
    done = host.run(name, ("/bin/sha256sum",), "--rm", runtime=runtime, stdin=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()


@RUNTIMES
def test_a_terminal_is_a_terminal(host: Host, name: str, runtime: str) -> None:
    """It ends once its output was seen: at the end of a terminal, runc's shim at times loses the last of it."""
    command = sh("stty size; test -t 0 && test -t 1 && echo both && read line")
    arguments = host.run_arguments(name, command, "--rm", "--tty", runtime=runtime)
    master, slave = pty.openpty()
    os.set_blocking(master, True)
    with subprocess.Popen(
        host.daemon.command(*arguments),
        env=host.daemon.environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as process:
        os.close(slave)
        output = b""
        answered = False
        while chunk := read_terminal(master):
            output += chunk
            if b"both" in output and not answered:
                answered = os.write(master, b"\r") == 1
        assert process.wait(60) == 0, output
    os.close(master)
    assert b"both" in output


@RUNTIMES
def test_environment_working_directory_and_user_are_the_images(host_21: Host, name: str, runtime: str) -> None:
    command = ("/bin/bash", "-c", "pwd; id -u; echo $PATH")
    done = host_21.run(name, command, "--rm", image=DEBIAN, runtime=runtime)
    assert done.stderr == ""
    assert done.stdout == "/opt\n0\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


@RUNTIMES
def test_a_debian_userland_of_several_layers_looks_the_same(host: Host, name: str, runtime: str) -> None:
    script = (
        "ls /opt/old /opt/kept; cat /etc/current; stat -c '%a %h' /usr/bin/passwd /opt/kept/linked; "
        "cat /opt/kept/caf*; "
        "echo changed > /opt/kept/stays && cat /opt/kept/stays; rm /etc/version && test ! -e /etc/version && "
        "bash --version | head -1 | cut -c1-8; . /etc/os-release; echo $ID"
    )
    done = host.run(name, ("/bin/bash", "-c", script), "--rm", image=DEBIAN, runtime=runtime)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *("/opt/kept:", "caf\u00e9", "linked", "stays", "", "/opt/old:", "b"),
        *("2", "4755 1", "644 2", "utf-8 name", "changed", "GNU bash", "debian"),
    ]


@RUNTIMES
def test_what_the_container_writes_it_reads_back(host_21: Host, name: str, runtime: str) -> None:
    script = "dd if=/dev/zero of=/root/f bs=1024 count=4096 2>/dev/null; sync; sha256sum /root/f; df / >/dev/null"
    done = host_21.run(name, sh(script), "--rm", runtime=runtime)
    assert done.stdout.split()[0] == hashlib.sha256(bytes(4096 * 1024)).hexdigest()


@RUNTIMES
def test_large_output_arrives_whole(host_21: Host, name: str, runtime: str) -> None:
    done = host_21.run(name, sh("yes 0123456789abcde | head -c 8000000"), "--rm", runtime=runtime)
    assert len(done.stdout) == 8_000_000
    assert set(done.stdout.splitlines()) == {"0123456789abcde"}


@RUNTIMES
def test_a_missing_program_fails_the_start_and_leaves_no_task(host: Host, name: str, runtime: str) -> None:
    done = host.run(name, ("/bin/no-such-program",), runtime=runtime)
    assert done.returncode != 0
    assert "no-such-program" in done.stderr
    assert host.status(name) == ""
    host.remove(name)


def test_the_same_name_can_be_used_again_at_once(host_21: Host, name: str) -> None:
    for _ in range(2):
        assert host_21.run(name, ("/bin/true",), "--rm").returncode == 0


def test_a_detached_container_runs_and_stops(host: Host, name: str) -> None:
    command = sh("trap 'exit 5' TERM; while :; do sleep 1; done")
    done = host.run(name, command, "--detach")
    assert done.returncode == 0, done.stderr
    assert host.status(name) == "RUNNING"
    host.signal_until_stopped(name)
    assert host.delete_task(name) == 5
    host.remove(name)
