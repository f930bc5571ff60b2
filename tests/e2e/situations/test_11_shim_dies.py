# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the shim: reported once, and nothing is left. The other steps of a life: `tests.e2e.test_crash_steps`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.crashes import die_while_running, kill_all, shim
from tests.e2e.host import Host

pytestmark = pytest.mark.e2e


def test_death_of_the_shim_is_reported_once_and_leaves_nothing(own_host: Host, name: str, tmp_path: Path) -> None:
    # ctr's own wait is cut off, with runc as well: it says so with exit code 1.
    die_while_running(own_host, name, lambda: kill_all(shim(own_host)), expected=1, events=tmp_path / "events")
    assert own_host.run(name, ("/bin/true",), "--rm").returncode == 0
