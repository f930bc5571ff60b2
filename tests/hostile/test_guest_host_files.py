# SPDX-License-Identifier: Apache-2.0
"""What the shim leaves on the host: sockets, directories, and what it looks at."""

from __future__ import annotations

import ast
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from parma_shim import sockets, start
from parma_shim.vm import disks, machine
from tests.shim.conftest import binary, short_path
from tests.shim.support import Binary, bundle
from tests.shim.test_binary import daemon_of

__all__ = ["binary", "short_path"]

SCANNING = {"listdir", "scandir", "glob", "rglob", "iterdir", "walk"}


@pytest.fixture
def careless_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("careless_umask")
def test_R58_sockets_are_files_that_only_their_owner_can_open(tmp_path: Path) -> None:
    path = tmp_path / "s" / "x"
    listener = sockets.listen_or_join(str(path))
    assert listener is not None
    with closing(listener):
        assert listener.getsockname() == str(path)  # no abstract name
        assert mode(path) == 0o600
        assert mode(path.parent) == 0o711
        assert os.umask(0) == 0  # and the umask is what it was
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def unix_sockets(pid: int) -> list[str]:
    """Names of the process's sockets: paths, `@...` for abstract ones, empty for those that have none."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = (line.split(maxsplit=7) for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:])
    return [row[7] if len(row) > 7 else "" for row in rows if row[6] in inodes]


@pytest.mark.usefixtures("careless_umask")
def test_R58_a_running_shim_has_no_socket_without_a_file_and_no_file_for_others(
    binary: Binary, short_path: Path
) -> None:
    here = bundle(short_path / "b", "sleep")
    given = set(here.iterdir())
    address = binary.start("x", here)["address"].removeprefix("unix://")
    names = unix_sockets(daemon_of(here).pid)
    assert address in names
    assert [name for name in names if name.startswith("@")] == []
    assert mode(Path(address)) == 0o600
    made = [path for path in here.iterdir() if path not in given]
    assert [path for path in made if mode(path) & 0o077 and not path.is_symlink()] == []


@pytest.mark.usefixtures("careless_umask")
def test_R63_directories_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "vm"
    machine._make_directory(directory)
    assert (mode(directory), mode(directory.parent)) == (0o700, 0o700)
    descriptor = disks.open_scratch(tmp_path / "data", 64 << 20)
    try:
        assert mode(tmp_path / "data") == 0o700
        assert list((tmp_path / "data").iterdir()) == []  # scratch space has no name that anybody could open
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077 == 0
    finally:
        os.close(descriptor)


OTHERS = 24
"""Sandboxes that run beside; what two hundred cost would be seen in a tenth of them."""


def reading(shim: Binary, identity: str, here: Path) -> tuple[int, int]:
    """Starts a sandbox; how many bytes `start` has read, and how often, everything that it loads included."""
    words = [str(shim.path), "-namespace", "default", "-address", str(shim.address), "-id", identity, "start"]
    process = subprocess.Popen(
        words, cwd=here, env=shim.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin is not None
    process.stdin.write(shim.params(identity))
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and can still be asked
    counted = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    assert process.stdout is not None
    with process.stdout as output:
        assert (process.wait(), b"address" in output.read()) == (0, True)
    return int(counted["rchar"]), int(counted["syscr"])


def test_R77_start_costs_beside_many_sandboxes_what_it_costs_alone(binary: Binary, short_path: Path) -> None:
    def start(number: int) -> tuple[int, int]:
        identity = f"s{number:02}"
        here = bundle(short_path / identity, "sleep")
        found = reading(binary, identity, here)
        daemon_of(here)  # it runs from here on
        return found

    start(0)  # what only the first one does
    alone = start(1)
    for number in range(2, OTHERS):
        start(number)
    beside = start(OTHERS)
    assert [after <= 1.2 * before for before, after in zip(alone, beside, strict=True)] == [True, True], (alone, beside)


def test_R77_start_reads_nothing_of_other_containers() -> None:
    """No directory is listed but that of the cgroup hierarchies, whose number has nothing to do with containers."""
    listed = []
    for module in (start, sockets):
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SCANNING:
                listed.append(ast.unparse(node))
    assert listed == ["posix.listdir(root)"]
