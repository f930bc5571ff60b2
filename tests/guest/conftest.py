# SPDX-License-Identifier: Apache-2.0
"""An enforcer over fakes that has accepted a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.fakes import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.set_policy()
    return rig
