# SPDX-License-Identifier: Apache-2.0
"""What the commands that somebody waits for may import, and how much an idle daemon may hold."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from parma_shim.api import task_pb2
from tests.shim.support import Binary, bundle, python_isolated, task_stub
from tests.shim.test_binary import daemon_of

ALLOWED = {
    "flags",
    "bootstrap",
    "bundle",
    "config_files",
    "delete",
    "digest",
    "fields",
    "info",
    "main",
    "sockets",
    "start",
    "task_api",
}
"""Modules of ours in tier 0."""

PYTHON = {"os", "os.path", "stat", "posixpath", "genericpath", "_collections_abc", "_stat"}
"""Modules written in Python that are frozen into the interpreter, and so cost next to nothing."""

GO_SHIM_KIB = 17_846
"""Resident memory of an idle containerd-shim-runc-v2 on the same kind of machine."""

HEAVY = {"typing", "re", "threading", "socket", "pathlib", "enum", "hashlib", "ttrpc", "google", "subprocess", "json"}

COMMAND = """
import os
os.chdir({directory!r})
from parma_shim import main
main.main("", {arguments!r})
os.write(1, ("\\n" + " ".join(sys.modules)).encode())
"""

START = """
import posix
posix.chdir({directory!r})
posix.environ[b"MAX_SHIM_VERSION"] = b"2"
def fork():
    posix.write(1, ("\\n" + " ".join(sys.modules)).encode())
    posix._exit(0)
posix.fork = fork
from parma_shim import bootstrap, main
bootstrap.DEFAULT_SOCKET_DIR = {sockets!r}
main.main({config!r}, ["-namespace", "n", "-id", "y", "-address", "/a", "start"])
"""


def imported(code: str) -> set[str]:
    """Modules that an interpreter has loaded at the end of ``code``, beyond those it starts with."""
    return set(python_isolated(code).splitlines()[-1].split()) - set(python_isolated("print(*sys.modules)").split())


@pytest.mark.parametrize("arguments", [["-v"], ["-info"], ["-id", "x", "delete"]])
def test_commands_import_nothing_but_their_own_few_modules(tmp_path: Path, arguments: list[str]) -> None:
    names = imported(COMMAND.format(directory=str(tmp_path), arguments=arguments))
    assert {name for name in names if name.startswith("parma")} <= {"parma_shim"} | {f"parma_shim.{m}" for m in ALLOWED}
    assert names & HEAVY == set()
    files = {name for name in names if not name.startswith("parma_shim")} - PYTHON
    assert files <= set(sys.builtin_module_names)


def test_start_forks_before_it_imports_anything_heavy(binary: Binary, short_path: Path) -> None:
    here = bundle(short_path / "b")
    names = imported(START.format(directory=str(here), sockets=str(short_path / "t"), config=str(binary.config)))
    assert "parma_shim.start" in names
    assert names & (HEAVY | {"os"}) == set()
    assert {name for name in names if name.startswith("parma")} <= {"parma_shim"} | {f"parma_shim.{m}" for m in ALLOWED}


def test_an_idle_daemon_is_smaller_than_the_go_shim(binary: Binary, short_path: Path) -> None:
    # The smallest of some: on a busy machine threads meet in the allocator, which then keeps more for each.
    found = []
    for name in ("x", "y", "z"):
        here = bundle(short_path / name, "sleep")
        answer = binary.start(name, here)
        with task_stub(answer["address"]) as call:
            call("Create", task_pb2.CreateTaskRequest(id=name, bundle=str(here)))
            call("Start", task_pb2.StartRequest(id=name))
            found.append(rollup(daemon_of(here).pid)["Rss"])
        if found[-1] < GO_SHIM_KIB:
            return
    pytest.fail(f"KiB of resident memory: {found}, and not less than {GO_SHIM_KIB}")


def rollup(pid: int) -> dict[str, int]:
    """KiB of each kind of memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_the_daemon_has_no_pipes(binary: Binary, short_path: Path) -> None:
    here = bundle(short_path / "b", "sleep")
    answer = binary.start("x", here)
    with task_stub(answer["address"]) as call:
        call("Connect", task_pb2.ConnectRequest(id="x"))
        places = [os.readlink(entry) for entry in Path(f"/proc/{daemon_of(here).pid}/fd").iterdir()]  # noqa: PTH115
    assert [place for place in places if place.startswith("pipe:")] == []
