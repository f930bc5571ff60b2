# SPDX-License-Identifier: Apache-2.0
"""Child processes: pipes, deadlines, limits, and the thread they are started from."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

import pytest

from parma_shim.vm import spawn
from parma_wire.errors import DeadlineExceeded, Unavailable
from tests.descriptors import descriptors
from tests.shim.support import eventually
from tests.vm.support import ENVIRONMENT, soon


def shell(script: str, *, data: bytes = b"", deadline: float | None = None, maximum: int = 1 << 20) -> spawn.Finished:
    argv = ["/bin/sh", "-c", script]
    return spawn.run(argv, environment=ENVIRONMENT, data=data, deadline=deadline or soon(), maximum=maximum)


def test_input_outputs_and_exit_code_arrive() -> None:
    data = b"x" * 300_000
    result = shell("cat; echo oops >&2; exit 3", data=data)
    assert result == spawn.Finished(3, data, b"oops\n")


def test_a_signal_is_a_negative_status() -> None:
    assert shell("kill -9 $$").status == -9


def test_a_child_that_does_not_read_its_input_is_no_error() -> None:
    assert shell("exit 0", data=b"x" * 300_000).status == 0


def test_the_environment_is_the_one_given() -> None:
    assert b"PWD" not in spawn.run(["/usr/bin/env"], environment={"A": "b"}, deadline=soon()).stdout
    assert spawn.run(["/usr/bin/env"], environment={"A": "b"}, deadline=soon()).stdout == b"A=b\n"


def test_at_the_deadline_the_child_and_what_it_started_are_killed() -> None:
    process = spawn.Running(["/bin/sh", "-c", "sleep 600 & echo $!; wait"], environment=ENVIRONMENT)
    told, _ = process.communicate(b"", deadline=soon(), maximum=100, until=lambda out, _: out.endswith(b"\n"))
    pidfd = os.pidfd_open(int(told))
    with pytest.raises(DeadlineExceeded):
        process.communicate(b"", deadline=time.monotonic() + 0.05, maximum=100)
    assert process.status == -signal.SIGKILL
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


def test_too_much_output_is_refused() -> None:
    with pytest.raises(Unavailable, match="too much"):
        shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx; done", maximum=10_000)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(Unavailable, match="/nowhere/qemu"):
        spawn.spawn(["/nowhere/qemu"], environment={})


def test_a_relative_program_is_refused() -> None:
    with pytest.raises(Unavailable, match="absolute"):
        spawn.spawn(["qemu"], environment={})


def test_nothing_stays_open() -> None:
    shell("exit 0")
    before = descriptors()
    shell("exit 0")
    with pytest.raises(DeadlineExceeded):
        shell("sleep 600", deadline=time.monotonic() + 0.05)
    with pytest.raises(Unavailable):
        spawn.run(["/nowhere/x"], environment={}, deadline=soon())
    eventually(lambda: descriptors() <= before, "all to be closed; threads of others may be at work")


def test_only_named_descriptors_are_inherited() -> None:
    kept, other = os.pipe()
    child = spawn.Running(
        [sys.executable, "-ISc", "import os; print(os.listdir('/proc/self/fd'))"], environment={}, keep=[kept]
    )
    stdout, _ = child.communicate(b"", deadline=soon(), maximum=10_000)
    child.finish(deadline=soon())
    assert f"'{kept}'" in stdout.decode()
    assert f"'{other}'" not in stdout.decode()
    os.close(kept)
    os.close(other)


def test_until_stops_reading_early_and_leaves_the_child_to_the_caller() -> None:
    process = spawn.Running(["/bin/sh", "-c", "echo ready; exec sleep 600"], environment=ENVIRONMENT)
    stdout, _ = process.communicate(b"", deadline=soon(), maximum=1000, until=lambda out, _: b"ready" in out)
    assert stdout == b"ready\n"
    assert not spawn.wait_exit(process.child, 0)
    process.kill()
    assert process.status == -signal.SIGKILL


def test_abort_from_another_thread_ends_a_wait() -> None:
    process = spawn.Running(["/bin/sleep", "600"], environment=ENVIRONMENT)
    threading.Timer(0.05, process.abort).start()
    process.communicate(b"", deadline=soon(), maximum=1000)
    assert process.finish(deadline=soon()) == -signal.SIGKILL
    process.abort()


def test_reaping_twice_gives_no_status() -> None:
    child = spawn.spawn(["/bin/true"], environment={})
    assert spawn.wait_exit(child, 60)
    assert spawn.reap(child) == 0
    assert spawn.reap(child) is None
    spawn.send_signal(child, signal.SIGKILL)
    os.close(child.pidfd)


def test_the_spawn_thread_is_always_the_same_and_hands_results_back() -> None:
    executor = spawn.SpawnThread()
    assert executor(threading.get_ident) == executor(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        executor(lambda: 1 // 0)
    assert executor(lambda: "still there") == "still there"
