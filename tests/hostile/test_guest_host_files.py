# SPDX-License-Identifier: Apache-2.0
"""What the shim leaves on the host: sockets, directories, and what it looks at."""

from __future__ import annotations

import ast
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parma_shim import sockets, start
from parma_shim.vm import disks, machine

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


def test_R77_start_reads_nothing_of_other_containers() -> None:
    """No directory is listed but that of the cgroup hierarchies, whose number has nothing to do with containers."""
    listed = []
    for module in (start, sockets):
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SCANNING:
                listed.append(ast.unparse(node))
    assert listed == ["posix.listdir(root)"]
