# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the shim's tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_shim import bundle
from tests.shim.support import Binary, FakeContainerd, Rig


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
        state = bundle.read_state(str(state_file.parent))
        if state is not None and state.pid and bundle.start_time(state.pid) == state.started:
            os.kill(state.pid, signal.SIGKILL)
