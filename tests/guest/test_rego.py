# SPDX-License-Identifier: Apache-2.0
"""The enforcer's side of the ``rego`` image variant, with the real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_guest import rego
from parma_guest.decisions import FrameworkEngine
from parma_guest.reaper import Reaper
from parma_wire.errors import Malformed
from tests.policy.builders import text
from tests.policy.rego_engine import PROGRAM, needs_engine

pytestmark = [needs_engine, pytest.mark.skipif(os.geteuid() != 0, reason="confinement needs root")]

RULES = """
get_properties := {"allowed": false, "metadata": [{"name": "asked", "action": "update", "key": "k", "value": 1}]}

dump_stacks := {"allowed": data.metadata.asked.k == 1}
"""


def own_rules() -> bytes:
    lines = [line for line in text().splitlines() if not line.startswith(("get_properties ", "dump_stacks "))]
    return "\n".join([*lines, RULES]).encode()


class NoReaper(Reaper):
    """Starts the engine built in the checkout; whoever made it waits for its end."""

    def spawn(self, arguments: Any, stdio: tuple[int, int, int]) -> Any:
        assert arguments == [rego.PROGRAM, "-confine"]
        self.child = super().spawn([str(PROGRAM), "-confine"], stdio)
        return self.child


@pytest.fixture
def reaper() -> Iterator[NoReaper]:
    made = NoReaper()
    yield made
    if hasattr(made, "child"):
        os.kill(made.child.pid, 9)
        os.waitpid(made.child.pid, 0)


def test_a_policy_of_data_never_starts_the_engine(reaper: NoReaper) -> None:
    assert isinstance(rego.loader(reaper)(text().encode()), FrameworkEngine)
    assert not hasattr(reaper, "child")


def test_a_policy_that_is_no_policy_never_starts_the_engine(reaper: NoReaper) -> None:
    with pytest.raises(Malformed):
        rego.loader(reaper)(text(allow_dump_stacks="yes").encode())
    assert not hasattr(reaper, "child")


def test_denials_of_rules_are_remembered_as_far_as_they_record(reaper: NoReaper) -> None:
    engine = rego.loader(reaper)(own_rules())
    assert engine.records
    before = engine.initial_state()
    verdict, after = engine.decide(before, "get_properties", {})
    assert not verdict.allowed
    assert engine.decide(engine.after_denial(before, before, after), "dump_stacks", {})[0].allowed
    _, mounted = engine.decide(before, "mount_device", {"target": "/run/mounts/scsi/m1", "deviceHash": "1" * 64})
    _, after = engine.decide(mounted, "get_properties", {})
    left = engine.after_denial(before, mounted, after)
    assert left.metadata.framework == before.metadata.framework
    assert engine.decide(left, "dump_stacks", {})[0].allowed


def test_the_program_is_the_built_one() -> None:
    from parma_image import rego as image

    assert f"/{image.PROGRAM}" == rego.PROGRAM
    assert Path(rego.PROGRAM).is_relative_to("/usr/lib/parma")
