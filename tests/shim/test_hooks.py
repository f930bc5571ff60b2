# SPDX-License-Identifier: Apache-2.0
"""Hooks of a specification: which run when, in which namespace, and what becomes of those that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_shim.api import task_pb2
from parma_shim.helpers.call import call
from parma_shim.task import hooks
from parma_shim.task.ports import ContainerSpec
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unavailable, Unsupported
from tests.shim.fakes import PATIENCE
from tests.shim.support import LIFE, SPEC, Rig

PYTHON = Path(sys.executable)
ALL = {kind: [{"path": f"/{kind}"}] for kind in hooks.KINDS}
NETNS = "/proc/4242/ns/net"


def test_each_kind_runs_at_its_moment_on_the_host(rig: Rig) -> None:
    rig.create("a", "exit", "0", hooks=ALL)
    assert rig.group.hooks == [
        ("/prestart", "creating", 4242, ""),
        ("/createRuntime", "creating", 4242, ""),
        ("/createContainer", "creating", 4242, NETNS),
    ]
    rig.call("Start", task_pb2.StartRequest(id="a"))
    rig.wait("a")
    assert rig.group.hooks[3:] == [("/poststart", "running", 4242, "")]
    rig.delete("a")
    assert rig.group.hooks[4:] == [("/poststop", "stopped", 0, "")]
    assert rig.topics() == LIFE


def test_a_network_namespace_that_the_specification_names_is_the_hooks(rig: Rig) -> None:
    pod = {"io.kubernetes.cri.sandbox-id": "a"}
    linux = {"namespaces": [{"type": "network", "path": "/run/netns/x"}, {"type": "pid"}, {"type": "ipc"}]}
    rig.create("a", hooks={"createRuntime": [{"path": "/hook"}]}, linux=linux, annotations=pod)
    assert rig.group.hooks == [("/hook", "creating", 4242, "/run/netns/x")]


def test_a_container_whose_creation_hook_fails_never_existed(rig: Rig) -> None:
    rig.group.failing_hooks.add("/createRuntime")
    with pytest.raises(FailedPrecondition, match="the hook /createRuntime failed"):
        rig.create("a", hooks=ALL)
    assert [path for path, *_ in rig.group.hooks] == ["/prestart", "/createRuntime", "/poststop"]
    assert rig.group.created == []
    assert rig.topics() == []
    rig.group.failing_hooks.clear()
    rig.create("a")


def test_hooks_at_the_end_run_too_where_the_creation_fails_after_them(rig: Rig) -> None:
    def refuse(_spec: ContainerSpec) -> None:
        raise Denied("no such container in the policy")

    rig.group.on_created = refuse
    with pytest.raises(Denied, match="no such container"):
        rig.create("a", hooks=ALL)
    assert [path for path, *_ in rig.group.hooks] == ["/prestart", "/createRuntime", "/createContainer", "/poststop"]


def test_no_hook_runs_where_the_machine_never_did(rig: Rig) -> None:
    def refuse(_spec: ContainerSpec) -> None:
        raise Unavailable("no QEMU")

    rig.group.on_create = refuse
    with pytest.raises(Unavailable, match="no QEMU"):
        rig.create("a", hooks=ALL)
    assert rig.group.hooks == []


def test_later_hooks_that_fail_change_nothing(rig: Rig) -> None:
    rig.group.failing_hooks.update({"/poststart", "/poststop"})
    rig.run("a", "exit", "3", hooks=ALL)
    assert rig.wait("a") == 3
    assert rig.delete("a").exit_status == 3


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"startContainer": [{"path": "/x"}]}, Unsupported, "in the container"),
        ({"createruntime": [{"path": "/x"}]}, Malformed, "unknown kind"),
        ({"poststop": {"path": "/x"}}, Malformed, "not a list"),
        ({"poststop": ["/x"]}, Malformed, "not an object"),
        ({"poststop": [{}]}, Malformed, "without a path"),
        ({"poststop": [{"path": "x"}]}, Malformed, "without a path"),
        ({"poststop": [{"path": "/x", "timeout": 0}]}, Malformed, "time-out"),
        ({"poststop": [{"path": "/x", "timeout": True}]}, Malformed, "time-out"),
        ({"poststop": [{"path": "/x", "args": "x"}]}, Malformed, "args"),
        ({"poststop": [{"path": "/x", "env": [1]}]}, Malformed, "env"),
        ([], None, ""),
        ({"poststop": []}, None, ""),
        ("x", Malformed, "not an object"),
    ],
)
def test_what_is_no_hook_is_refused(given: Any, error: type[Exception] | None, says: str) -> None:
    spec = {**SPEC, "hooks": given}
    if error is None:
        assert hooks.parse(spec, "a", "/b") is None
        return
    with pytest.raises(error, match=says):
        hooks.parse(spec, "a", "/b")


# The helper, with real programs


def request(
    directory: Path, *programs: dict[str, Any], namespace: str = "", seconds: float = PATIENCE
) -> dict[str, Any]:
    complete = [{"args": [], "env": [], "timeout": None, **program} for program in programs]
    return {
        "network_namespace": namespace,
        "directory": str(directory),
        "state": {"id": "a", "pid": 7},
        "hooks": complete,
        "seconds": seconds,
        "cgroups": str(directory / "no-cgroups"),
    }


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["hook", "-c", script], **fields}


def test_a_hook_gets_the_state_its_environment_and_its_own_name(tmp_path: Path) -> None:
    script = 'cat > state; env | sort > env; echo "$0" > name; pwd > directory'
    assert call(PYTHON, "hooks", request(tmp_path, shell(script, env=["A=b=c"])), timeout=PATIENCE) == {}
    assert json.loads((tmp_path / "state").read_text()) == {"id": "a", "pid": 7}
    assert "A=b=c" in (tmp_path / "env").read_text().splitlines()
    assert not any(line.startswith("PYTHONPATH=") for line in (tmp_path / "env").read_text().splitlines())
    assert (tmp_path / "name").read_text() == "hook\n"
    assert (tmp_path / "directory").read_text() == f"{tmp_path}\n"


def test_the_first_failure_says_what_the_hook_said_and_ends_the_row(tmp_path: Path) -> None:
    programs = (shell("echo no such bridge >&2; exit 4"), shell("touch ran"))
    with pytest.raises(FailedPrecondition, match=r"the hook /bin/sh failed \(4\): no such bridge"):
        call(PYTHON, "hooks", request(tmp_path, *programs), timeout=PATIENCE)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FailedPrecondition, match="cannot be executed: No such file"):
        call(PYTHON, "hooks", request(tmp_path, {"path": "/no/such/hook"}), timeout=PATIENCE)


def test_a_hook_that_hangs_is_killed_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(FailedPrecondition, match="did not end in 1 seconds"):
        call(PYTHON, "hooks", request(tmp_path, shell("sleep 600", timeout=1)), timeout=PATIENCE)
    with pytest.raises(FailedPrecondition, match="did not end"):
        call(PYTHON, "hooks", request(tmp_path, shell("sleep 600"), seconds=0.5), timeout=PATIENCE)
    assert time.monotonic() - began < PATIENCE


@pytest.fixture
def network_namespace() -> Iterator[str]:
    """Of a process that does nothing else."""
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        path = f"/proc/{holder.pid}/ns/net"
        deadline = time.monotonic() + PATIENCE
        while str(Path(path).readlink()) == str(Path("/proc/self/ns/net").readlink()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_hooks_run_in_the_network_namespace(tmp_path: Path, network_namespace: str) -> None:
    script = "readlink /proc/self/ns/net > namespace"
    call(PYTHON, "hooks", request(tmp_path, shell(script), namespace=network_namespace), timeout=PATIENCE)
    assert (tmp_path / "namespace").read_text().strip() == str(Path(network_namespace).readlink())


def test_without_the_namespace_no_hook_runs(tmp_path: Path) -> None:
    wanted = request(tmp_path, shell("touch ran"), namespace=str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="cannot open the network namespace"):
        call(PYTHON, "hooks", wanted, timeout=PATIENCE)
    assert not (tmp_path / "ran").exists()
