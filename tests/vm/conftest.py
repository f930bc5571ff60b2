# SPDX-License-Identifier: Apache-2.0
"""A guest that says what the test wants, the shim's client of it, and a group with a VM around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ttrpc
from parma_shim.guest import GuestClient
from tests.vm.fake_guest import FakeGuest
from tests.vm.group_world import World


@pytest.fixture
def guest() -> Iterator[FakeGuest]:
    fake = FakeGuest()
    yield fake
    fake.close()


@pytest.fixture
def client(guest: FakeGuest) -> Iterator[GuestClient]:
    connection = ttrpc.Client(guest.connect())
    yield GuestClient(connection, timeout=10)
    connection.close()
    connection.join(60)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
