# SPDX-License-Identifier: Apache-2.0
"""The guest that most attacks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guest import vm_harness as vm
from tests.hostile import stage as stages
from tests.vm.conftest import client, guest

__all__ = ["client", "guest"]


@pytest.fixture(scope="session")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stages.Stage]:
    if vm.missing():
        pytest.skip(vm.missing())
    with stages.running(tmp_path_factory.mktemp("hostile")) as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: stages.Stage) -> Iterator[stages.Stage]:
    """The shared guest. After each attack an honest host must be able to use it."""
    yield shared_stage
    shared_stage.assert_unharmed()
