# SPDX-License-Identifier: Apache-2.0
"""Golden cases: the generator makes the same bytes as before, whoever runs it."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest

from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES
from parma_policy.generate import platforms, seccomp_profiles
from parma_policy.generate.capabilities import BY_NUMBER
from parma_policy.reader import load
from tests.policy.generate.builders import app_image
from tests.policy.generate.make_vectors import cases, run_case

# A released rule set never changes: policies made with it must stay the same.
RULE_SETS = {
    "ctr-1": "7723e34d304225e1",
    "nerdctl-1": "95c251d72b68fd2d",
    "kubernetes-1": "c5d94cb59dda2f32",
    "aci-1": "9c5d07ba0c1667f7",
}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_policies_are_those_of_the_golden_case(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run_case(case, app_image(tmp_path / "app.tar"), out)
    made = {path.name: path.read_text() for path in out.iterdir()}
    assert made == {path.name: path.read_text() for path in case.glob("*.rego")}
    for text in made.values():
        assert text.isascii()
        assert str(tmp_path) not in text
        assert load(text.encode()).containers.containers


def test_a_released_rule_set_never_changes() -> None:
    text = resources.files("parma_policy.generate").joinpath("data/platforms.json").read_text("utf-8")
    found = {name: json.dumps(members, sort_keys=True).encode() for name, members in json.loads(text).items()}
    assert tuple(found) == platforms.names()
    assert {name: hashlib.sha256(members).hexdigest()[:16] for name, members in found.items()} == RULE_SETS


@pytest.mark.parametrize("version", seccomp_profiles.names())
def test_recorded_profiles_depend_on_capabilities_and_their_order(version: str) -> None:
    usual = seccomp_profiles.default(version, UNPRIVILEGED_CAPABILITIES)
    more = (*UNPRIVILEGED_CAPABILITIES, "CAP_SYS_TIME", "CAP_SYSLOG")
    other_order = (*UNPRIVILEGED_CAPABILITIES, "CAP_SYSLOG", "CAP_SYS_TIME")
    hashes = {usual, seccomp_profiles.default(version, more), seccomp_profiles.default(version, other_order)}
    assert len(hashes) == 3
    assert seccomp_profiles.default(version, ("CAP_KILL",)) == seccomp_profiles.default(version, ("CAP_CHOWN",))


def test_every_capability_has_its_number() -> None:
    assert set(BY_NUMBER) == set(PRIVILEGED_CAPABILITIES)
    assert len(BY_NUMBER) == 41


def test_a_rule_set_of_ones_own_is_a_file(tmp_path: Path) -> None:
    text = (Path(platforms.__file__).parent / "data/platforms.json").read_text()
    own = {"ours-1": json.loads(text)["ctr-1"]}
    path = tmp_path / "ours.json"
    path.write_text(json.dumps(own))
    assert platforms.load(str(path)).name == "ours-1"
