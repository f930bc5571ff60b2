# SPDX-License-Identifier: Apache-2.0
"""The VM ends by itself: QEMU is killed, or crashes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.crashes import die_while_running, qemu, signal_all
from tests.e2e.host import Host

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["killed", "crashed"])
def test_death_of_qemu_is_reported_once_and_leaves_nothing(
    own_host: Host, name: str, number: signal.Signals, tmp_path: Path
) -> None:
    strike = lambda: signal_all(qemu(own_host), number)  # noqa: E731
    die_while_running(own_host, name, strike, expected=137, events=tmp_path / "events")
