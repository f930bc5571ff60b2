# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the shim's tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from parma_shim import bundle
from parma_shim.task import exits
from tests.shim.fakes import PATIENCE
from tests.shim.support import Binary, FakeContainerd, Rig, ended, eventually


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.group.machine_dies()
    for container in made.env.tasks.all():
        for process in [container.init, *container.execs.values()]:
            if process.io is not None:
                process.io.close()


@pytest.fixture
def complete_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit waits for the process's output however slow this machine is."""
    monkeypatch.setattr(exits, "DRAIN", PATIENCE)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for socket names."""
    with tempfile.TemporaryDirectory(prefix="ps") as directory:
        yield Path(directory)


@pytest.fixture
def containerd(short_path: Path) -> Iterator[FakeContainerd]:
    made = FakeContainerd(short_path / "c.sock.ttrpc")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def binary(short_path: Path) -> Iterator[Binary]:
    """The real program; daemons that a test leaves behind are killed."""
    made = Binary(short_path)
    yield made
    for state_file in short_path.glob(f"*/{bundle.STATE}"):
        state = eventually(partial(_settled, state_file.parent), "the daemon")
        if state.pid and bundle.start_time(state.pid) == state.started:
            os.kill(state.pid, signal.SIGKILL)
            eventually(partial(ended, state.pid), "the daemon's end")


def _settled(here: Path) -> bundle.State | None:
    """What a bundle says once its daemon has written its number there: it writes no more. None listens: none is."""
    state = bundle.read_state(str(here)) or bundle.State()
    return state if state.pid or not _listens(state.socket) else None


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(path)
        return True
    return False
