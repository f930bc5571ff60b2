# SPDX-License-Identifier: Apache-2.0
"""What the commands that somebody waits for may import, and how much an idle daemon may hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from parma_shim.api import task_pb2
from tests.shim.support import Binary, bundle, python_isolated, task_stub
from tests.shim.test_binary import daemon_of

ALLOWED = {"flags", "bootstrap", "bundle", "delete", "digest", "fields", "info", "main", "sockets", "start", "task_api"}
"""Modules of ours in tier 0."""

PYTHON = {"os", "os.path", "stat", "posixpath", "genericpath", "_collections_abc", "_stat"}
"""Modules written in Python that are frozen into the interpreter, and so cost next to nothing."""

GO_SHIM_KIB = 17_846
"""Resident memory of an idle containerd-shim-runc-v2 on the same kind of machine."""

REPORT = """
import json, os
from parma_shim import main
code = main.main("", {arguments!r})
python = [name for name, module in sys.modules.items()
          if getattr(module, "__file__", None) or name.startswith("parma")]
os.write(1, b"\\n" + json.dumps(sorted(python)).encode())
"""


def imported(directory: Path, *arguments: str) -> set[str]:
    """Modules with a file that one call imports."""
    code = f"import os; os.chdir({str(directory)!r})" + REPORT.format(arguments=list(arguments))
    return set(json.loads(python_isolated(code).splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["-v"], ["-info"], ["-id", "x", "delete"]])
def test_commands_import_nothing_but_their_own_few_modules(tmp_path: Path, arguments: list[str]) -> None:
    names = imported(tmp_path, *arguments)
    ours = {name.removeprefix("parma_shim.") for name in names if name.startswith("parma_shim.")}
    assert ours <= ALLOWED
    other = {name for name in names if not name.startswith("parma_shim") and name not in PYTHON and name != "json"}
    started_with = set(json.loads(python_isolated("import json\nprint(json.dumps(sorted(sys.modules)))")))
    assert other - started_with - {"__main__"} == set()


def test_start_forks_before_it_imports_anything_heavy(binary: Binary, short_path: Path) -> None:
    """The parent's imports are those that the child has had before its first own one."""
    here = bundle(short_path / "b")
    environment = {**binary.environment, "PYTHONPROFILEIMPORTTIME": "1"}  # ignored: isolated
    done = binary.run("start", "x", here=here, stdin=binary.params("x"), environment=environment)
    assert json.loads(done.stdout)["version"] == 3
    source = f"""
import json, os
os.chdir({str(here)!r})
os.environ.update(MAX_SHIM_VERSION="2")
forked = []
os.fork = lambda: forked.append(sorted(sys.modules)) or os._exit(0 if print(json.dumps(sorted(sys.modules))) else 0)
from parma_shim import main, bootstrap
bootstrap.DEFAULT_SOCKET_DIR = {str(short_path / "t")!r}
sys.stdout.reconfigure(line_buffering=True)
main.main({str(binary.config)!r}, ["-namespace", "n", "-id", "y", "-address", "/a", "start"])
"""
    names = set(json.loads(python_isolated(source).splitlines()[-1]))
    heavy = {"typing", "re", "threading", "socket", "pathlib", "enum", "hashlib", "ttrpc", "google", "subprocess"}
    assert names & heavy == set()


def test_an_idle_daemon_is_smaller_than_the_go_shim(binary: Binary, short_path: Path) -> None:
    here = bundle(short_path / "b", "sleep")
    answer = binary.start("x", here)
    with task_stub(answer["address"]) as call:
        call("Create", task_pb2.CreateTaskRequest(id="x", bundle=str(here)))
        call("Start", task_pb2.StartRequest(id="x"))
        memory = rollup(daemon_of(here).pid)
    assert memory["Rss"] < GO_SHIM_KIB, memory


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
