# SPDX-License-Identifier: Apache-2.0
"""What one does to a running container: exec, ps, metrics, pause, attach, signals. One VM serves most of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtool.containerd import RUNTIME
from tests.e2e.host import RUNC, Host, wait_until

pytestmark = pytest.mark.e2e

RUNTIMES = pytest.mark.parametrize("runtime", [RUNC, RUNTIME], ids=["runc", "parma"])

LOOP = ("/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.2; done")
EXECS = (
    ("/bin/true",),
    ("/bin/echo", "from exec"),
    ("/bin/cat",),
    ("/bin/sh", "-c", "exit 3"),
    ("/bin/sleep", "600"),
    ("/bin/tty",),
    ("/bin/no-such-program",),
)


@pytest.fixture(scope="module", params=[RUNC, RUNTIME], ids=["runc", "parma"])
def running(request: pytest.FixtureRequest, host: Host) -> Iterator[tuple[Host, str]]:
    """One detached container per runtime and containerd."""
    name = f"task-{request.param.split('.')[2]}"
    policy = host.policy(LOOP, execs=EXECS)
    done = host.run(name, LOOP, "--detach", policy=policy, runtime=request.param)
    assert done.returncode == 0, done.stderr
    yield host, name
    host.remove(name)


def test_exec_delivers_output_and_exit_code(running: tuple[Host, str]) -> None:
    host, name = running
    assert host.exec(name, "e1", "/bin/echo", "from exec").stdout == "from exec\n"
    assert host.exec(name, "e2", "/bin/sh", "-c", "exit 3").returncode == 3


def test_exec_reads_stdin_to_its_end(running: tuple[Host, str]) -> None:
    host, name = running
    data = os.urandom(100_000).hex()
    assert host.exec(name, "e3", "/bin/cat", stdin=data.encode()).stdout == data


def test_exec_of_a_missing_program_is_an_error(running: tuple[Host, str]) -> None:
    host, name = running
    done = host.exec(name, "e4", "/bin/no-such-program")
    assert done.returncode != 0
    assert "no-such-program" in done.stderr


def test_an_exec_id_can_be_used_again_after_the_exec_is_gone(running: tuple[Host, str]) -> None:
    host, name = running
    for _ in range(2):
        assert host.exec(name, "again", "/bin/true").returncode == 0


def test_ps_lists_the_containers_processes(running: tuple[Host, str]) -> None:
    host, name = running
    listing = host.daemon.ctr("task", "ps", name)
    assert listing.returncode == 0, listing.stderr
    pids = [int(line.split()[0]) for line in listing.stdout.splitlines()[1:]]
    task = next(line for line in host.daemon.ctr("task", "list").stdout.splitlines() if line.split()[0] == name)
    assert int(task.split()[1]) in pids
    assert len(pids) == len(set(pids)) >= 1


def accounted(pid: int) -> set[str]:
    """The cgroups in which the host accounts for a process's memory."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return {path for _, controllers, path in lines if {"memory", ""} & set(controllers.split(","))}


def test_the_host_accounts_for_the_task_in_the_containers_cgroup(running: tuple[Host, str]) -> None:
    host, name = running
    task = next(line for line in host.daemon.ctr("task", "list").stdout.splitlines() if line.split()[0] == name)
    pid = int(task.split()[1])
    assert f"/default/{name}" in accounted(pid)


def test_metrics_show_memory_and_cpu(running: tuple[Host, str]) -> None:
    host, name = running
    metrics = host.metrics(name)
    assert name in metrics
    assert "memory" in metrics


def test_pause_stops_and_resume_continues(running: tuple[Host, str]) -> None:
    host, name = running
    assert host.daemon.ctr("task", "pause", name).returncode == 0
    assert host.status(name) == "PAUSED"
    assert host.daemon.ctr("task", "resume", name).returncode == 0
    assert host.status(name) == "RUNNING"


def test_a_killed_exec_ends_with_137_and_the_container_goes_on(running: tuple[Host, str]) -> None:
    host, name = running
    arguments = ("task", "exec", "--exec-id", "long", name, "/bin/sleep", "600")
    with host.daemon.popen(*arguments, stdin=subprocess.DEVNULL) as process:
        wait_until(
            lambda: host.daemon.ctr("task", "kill", "--exec-id", "long", "--signal", "SIGKILL", name).returncode == 0,
            "the exec to exist",
        )
        assert process.wait(120) == 137
    assert host.status(name) == "RUNNING"


@RUNTIMES
def test_attach_continues_where_a_vanished_client_left(host: Host, name: str, runtime: str) -> None:
    command = ("/bin/sh", "-c", "read line; echo got $line; exit 4")
    arguments = host.run_arguments(name, command, runtime=runtime)
    first = host.daemon.popen(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_until(lambda: host.status(name) == "RUNNING", "the container to run")
    # The first client disappears without closing stdin: no end of file for the container.
    first.kill()
    first.communicate()
    attached = host.daemon.ctr("task", "attach", name, stdin=b"hello\n")
    assert (attached.returncode, attached.stdout) == (4, "got hello\n")
    host.remove(name)


def test_a_signal_reaches_the_containers_init(host: Host, name: str) -> None:
    assert host.run(name, LOOP, "--detach").returncode == 0
    host.signal_until_stopped(name)
    assert host.delete_task(name) == 7
    host.remove(name)
