# SPDX-License-Identifier: Apache-2.0
"""After many lives of containers and VMs, orderly ones and ones cut short by kill -9, everything is as it was.

The short form. `./dev soak` is the long one: 200 lives and more, 5 times 110 containers at once, 10,000 execs.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from devtool import paths
from devtool.containerd import PrivateContainerd
from tests.e2e.conftest import archives  # noqa: F401 - a fixture
from tests.e2e.host import BUSYBOX, Host
from tests.soak.footprint import Footprint
from tests.soak.run import SETTINGS
from tests.soak.soak import SHORT, Soak

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(900)
def test_many_lives_leave_exactly_what_was_there_before(archives: dict[str, Path]) -> None:  # noqa: F811
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config=SETTINGS) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        Soak(Host(daemon, archives), SHORT, print).run()


def test_what_has_grown_is_named() -> None:
    before = Footprint(Counter(socket=3), 10, 1 << 20, Counter(), 9000)
    after = Footprint(Counter(socket=4), 12, 1 << 20, Counter({"/dev/null": 1}), 90000)
    assert before.growth(before) == {}
    assert set(after.growth(before)) == {
        "descriptors of containerd",
        "goroutines of containerd",
        "descriptors of the shim",
        "KiB of the shim",
    }
