# SPDX-License-Identifier: Apache-2.0
"""Clients that know nothing of policies, with ``tee = none``: what containerd's own tests of a runtime expect.

One container per containerd serves what can share it; what is about a container's beginning or end has its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Containerd
from tests.e2e.host import Host, wait_until

pytestmark = pytest.mark.e2e

TWO_PROCESSES = ("/bin/sh", "-c", "/bin/sleep 1000000 && exit 0")
MEMORY_MAX = "cat /sys/fs/cgroup/memory.max"


@pytest.fixture(scope="module")
def running(open_host: Host) -> Iterator[tuple[Host, str]]:
    """A container that nobody has written a policy for."""
    name = "open"
    done = open_host.run(name, TWO_PROCESSES, "--detach", "--memory-limit", str(64 << 20))
    assert done.returncode == 0, done.stderr
    yield open_host, name
    open_host.remove(name)


def shell(host: Host, name: str, script: str, exec_id: str) -> str:
    done = host.exec(name, exec_id, "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def task_pid(host: Host, name: str) -> int:
    line = next(line for line in host.daemon.ctr("task", "list").stdout.splitlines() if line.split()[0] == name)
    return int(line.split()[1])


def test_any_command_can_be_executed_and_its_exit_code_comes_back(running: tuple[Host, str]) -> None:
    host, name = running
    assert host.exec(name, "code", "/bin/sh", "-c", "exit 6").returncode == 6
    assert shell(host, name, "echo anything at all", "echo") == "anything at all\n"
    missing = host.exec(name, "none", "none")
    assert missing.returncode != 0
    assert "none" in missing.stderr


def test_exactly_the_containers_processes_are_listed(running: tuple[Host, str]) -> None:
    host, name = running

    def pids() -> list[int]:
        return [int(line.split()[0]) for line in host.daemon.ctr("task", "ps", name).stdout.splitlines()[1:]]

    # A guest that is not quick is answered for from memory: by its last answer, which may be of before the fork.
    wait_until(lambda: len(pids()) == 2, "the two processes, and no other")
    assert task_pid(host, name) in pids()


def test_an_update_changes_the_limit_inside_and_metrics_say_so(running: tuple[Host, str]) -> None:
    host, name = running
    client = Containerd(host)
    assert shell(host, name, MEMORY_MAX, "before") == f"{64 << 20}\n"
    client.update(name, {"memory": {"limit": 32 << 20}})
    client.close()
    assert shell(host, name, MEMORY_MAX, "after") == f"{32 << 20}\n"
    metrics = json.loads(host.metrics(name, "--format", "json"))
    memory: dict[str, Any] = metrics.get("memory") or {}
    limit = memory.get("usage_limit") or (memory.get("usage") or {}).get("limit")
    assert int(limit or 0) == 32 << 20


def test_the_status_promises_nothing(running: tuple[Host, str]) -> None:
    host, name = running
    status = json.loads(host.parma_result("status", "--json", "--wait", "60", name).stdout)
    assert status["verdict"] == "unattested"
    assert status["tee"] == "none"


def test_sigkill_of_the_container_leaves_no_process_of_that_number(open_host: Host, name: str) -> None:
    assert open_host.run(name, TWO_PROCESSES, "--detach").returncode == 0
    pid = task_pid(open_host, name)
    client = Containerd(open_host)
    client.kill(name, 9)
    assert client.wait(name) == 137
    assert not Path(f"/proc/{pid}").exists()
    assert client.delete(name) == 137
    client.close()
    open_host.remove(name)


def test_a_user_namespace_maps_the_images_owners_and_the_containers_root(open_host: Host, name: str) -> None:
    script = (
        "id -u; cat /proc/self/uid_map; stat -c %u:%g /bin/busybox / /etc; touch /new && stat -c %u:%g /new;"
        " chown 34 /new && stat -c %u /new"
    )
    maps = ("--uidmap", "0:1000:65535", "--gidmap", "0:2000:65535")
    done = open_host.run(name, ("/bin/sh", "-c", script), "--rm", *maps)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "1000", "65535"]
    assert lines[2:7] == ["0:0", "0:0", "0:0", "0:0", "34"]
    open_host.daemon.ctr("container", "delete", name)


HOOK = """#!/bin/sh
state=$(cat)
echo "$0 $1 $A $state" >> {log}
[ "$1" != fail ] || {{ echo no such bridge >&2; exit 3; }}
"""


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    """A program that writes down what it was told."""
    path = tmp_path / "hook"
    path.write_text(HOOK.format(log=tmp_path / "log"))
    path.chmod(0o755)
    return path


def test_hooks_run_on_the_host_in_order_with_the_containers_state(open_host: Host, name: str, hook: Path) -> None:
    def entry(word: str) -> dict[str, object]:
        return {"path": str(hook), "args": ["hook", word], "env": ["A=b", "PATH=/usr/bin:/bin"], "timeout": 20}

    client = Containerd(open_host)
    client.new_container(name, ("/bin/true",))
    kinds = ("createRuntime", "poststart", "poststop")
    client.change_spec(name, lambda spec: spec.update(hooks={kind: [entry(kind)] for kind in kinds}))
    pid = client.create(name)
    log = hook.with_name("log")
    (line,) = log.read_text().splitlines()
    who, word, variable, state = line.split(" ", 3)
    assert (word, variable) == ("createRuntime", "b")
    assert who == str(hook)
    told = json.loads(state)
    assert told["pid"] == pid
    assert told["id"] == name
    assert Path(told["bundle"], "config.json").exists()
    client.start(name)
    assert client.wait(name) == 0
    assert client.delete(name) == 0
    words = [line.split(" ")[1] for line in log.read_text().splitlines()]
    assert words == list(kinds)
    client.close()
    open_host.remove(name)


def test_a_creation_hook_that_fails_is_the_answer_and_nothing_is_left(open_host: Host, name: str, hook: Path) -> None:
    client = Containerd(open_host)
    client.new_container(name, TWO_PROCESSES)
    failing = {"path": str(hook), "args": ["hook", "fail"], "env": ["PATH=/usr/bin:/bin"]}
    client.change_spec(name, lambda spec: spec.update(hooks={"createRuntime": [failing]}))
    call = client.sending_create(name)
    assert call.code().name == "FAILED_PRECONDITION"
    assert "no such bridge" in call.details()
    assert client.state(name) == "GONE"
    pid = json.loads(hook.with_name("log").read_text().split(" ", 3)[3])["pid"]
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the virtual machine to be gone")
    client.close()
    open_host.remove(name)


def test_a_device_of_the_host_and_a_host_network_are_refused_by_name(open_host: Host, name: str) -> None:
    for flags, word in ((("--net-host",), "--net-host"), (("--device", "/dev/null"), "--device")):
        done = open_host.run(name, TWO_PROCESSES, "--rm", *flags)
        assert done.returncode != 0
        assert word in done.stderr
        open_host.remove(name)
