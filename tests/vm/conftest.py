# SPDX-License-Identifier: Apache-2.0
"""A guest that says what the test wants, and the shim's client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ttrpc
from parma_shim.guest import GuestClient
from tests.vm.fake_guest import FakeGuest


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
    connection.join(10)
