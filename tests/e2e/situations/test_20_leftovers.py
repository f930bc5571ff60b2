# SPDX-License-Identifier: Apache-2.0
"""After many lives of containers and VMs, orderly ones and ones cut short by kill -9, everything is as it was.

The short form. `./dev soak` is the long one: 200 lives and more, 5 times 110 containers at once, 10,000 execs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
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


@pytest.mark.timeout(1200)
def test_many_lives_leave_exactly_what_was_there_before(archives: dict[str, Path]) -> None:  # noqa: F811
    with PrivateContainerd(paths.PREFIX / "containerd-2.1", parma_config=SETTINGS) as daemon:
        assert daemon.ctr("image", "import", archives[BUSYBOX]).returncode == 0
        Soak(Host(daemon, archives), SHORT, print).run()


BEFORE = Footprint(Counter(socket=3), 10, 1 << 20, Counter(), shims=2, shim_kib=20_000)


def test_what_has_grown_is_named() -> None:
    after = Footprint(Counter(socket=4), 12, 1 << 20, Counter({"/dev/null": 1}), shims=2, shim_kib=90_000)
    assert BEFORE.growth(BEFORE) == {}
    assert set(after.growth(BEFORE)) == {
        "descriptors of containerd",
        "goroutines of containerd",
        "descriptors of the shim",
        "KiB of the shims",
    }


@pytest.mark.parametrize(("shim_kib", "growth"), [(22_000, {}), (22_001, {"KiB of the shims": 1}), (19_000, {})])
def test_each_shim_has_its_allowance_and_no_more(shim_kib: int, growth: dict[str, object]) -> None:
    assert replace(BEFORE, shim_kib=shim_kib).growth(BEFORE, shim_allowance_kib=1000) == growth
