# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of ttrpc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import ttrpc
from tests.ttrpc.support import ECHO, SECONDS, Peer, Running, running


@pytest.fixture
def run() -> Iterator[Running]:
    with running() as started:
        yield started


@pytest.fixture
def client(run: Running) -> Iterator[ttrpc.Client]:
    with ttrpc.Client(run.connect()) as connected:
        yield connected
    connected.join(SECONDS)


@pytest.fixture
def echo(client: ttrpc.Client) -> Any:
    return ttrpc.stub(client, ECHO)


@pytest.fixture
def peer(run: Running) -> Iterator[Peer]:
    sock = run.connect()
    yield Peer(sock)
    sock.close()
