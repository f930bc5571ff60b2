# SPDX-License-Identifier: Apache-2.0
"""The policy engine's modules, which are imported beside the server."""

from __future__ import annotations

import threading

import pytest

from parma_guest import decisions
from parma_wire.errors import ParmaError


def test_no_policy_is_read_while_its_modules_are_being_imported() -> None:
    read = threading.Event()

    def load() -> None:
        with pytest.raises(ParmaError):
            decisions.FrameworkEngine(b"not a policy")
        read.set()

    with decisions._importing:  # as `preload` holds it
        loader = threading.Thread(target=load, daemon=True)
        loader.start()
        assert not read.wait(0.1)
    loader.join(30)
    assert read.is_set()


def test_preloading_leaves_nothing_to_import() -> None:
    decisions.preload()
    decisions.preload()
    with pytest.raises(ParmaError):
        decisions.FrameworkEngine(b"not a policy")
