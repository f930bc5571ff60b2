# SPDX-License-Identifier: Apache-2.0
"""Mounts of a container that is created: each must be one that the policy lists."""

from __future__ import annotations

import pytest

from parma_policy.framework import Platform
from parma_policy.model import MountRule
from tests.policy.builders import HUGE_PAGES, ID, SANDBOX, Json, Talk, code, container, creation, policy
from tests.policy.test_containers import DATA_MOUNT, create


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({}, True),
        ({"source": f"{SANDBOX}/tmp/empty/"}, False),
        ({"source": f"{SANDBOX}/tmp/empty/../../../etc"}, False),
        ({"source": f"{SANDBOX}/tmp/empty//x"}, False),
        ({"destination": "/data/"}, False),
        ({"destination": ""}, False),
        ({"options": ["rw", "rbind", "rshared", "rw"]}, False),
        ({"options": ["rw", "rbind", "suid"]}, False),
        ({"source": f"{'x' * len(SANDBOX)}/tmp/empty/volume"}, False),
        ({"destination": "/exact", "source": "/exact/source", "options": ["ro"]}, True),
        ({"destination": "/exact", "source": "/exact/sourc.", "options": ["ro"]}, False),
        ({"destination": "/exact", "source": f"{HUGE_PAGES}/x", "options": ["ro"]}, False),
    ],
)
def test_a_mount_must_be_listed(change: Json, allowed: bool) -> None:
    assert create(creation(mounts=[{**DATA_MOUNT, **change}])).allowed is allowed


@pytest.mark.parametrize("destination", ["/a/../b", "//a", "/a/./b"])
def test_a_destination_that_leads_elsewhere_is_for_the_reference_only(destination: str) -> None:
    rule = {**DATA_MOUNT, "source": "/s", "destination": destination}
    asked = creation(mounts=[rule])
    assert not create(asked, container(mounts=[rule])).allowed
    assert Talk(policy(container(mounts=[rule]), parity=True)).prepared().ask("create_container", asked).allowed


@pytest.mark.parametrize("parity", [True, False])
def test_nothing_is_mounted_nowhere(parity: bool) -> None:
    rule = {**DATA_MOUNT, "source": "/s", "destination": ""}
    talk = Talk(policy(container(mounts=[rule]), parity=parity)).prepared()
    assert code(talk.ask("create_container", creation(mounts=[rule]))) == "mounts"


def test_an_expression_that_is_none_accepts_no_source() -> None:
    rule = {**DATA_MOUNT, "source": "sandbox:///("}
    talk = Talk(policy(container(mounts=[rule]), parity=True)).prepared()
    asked = creation(mounts=[{**rule, "source": f"{SANDBOX}/("}])
    assert code(talk.ask("create_container", asked)) == "mounts"


def escaping() -> Json:
    rule = {"destination": "/data", "source": "sandbox:///a|.*/b", "type": "bind", "options": []}
    return container(mounts=[rule])


@pytest.mark.parametrize(
    ("source", "strict", "reference"),
    [(f"{SANDBOX}/a", True, True), (f"{SANDBOX}/x/b", True, True), ("/etc/b", False, True), ("/etc/c", False, False)],
)
def test_an_alternation_does_not_escape_its_directory(source: str, strict: bool, reference: bool) -> None:
    request = creation(mounts=[{"destination": "/data", "source": source, "type": "bind", "options": []}])
    assert create(request, escaping()).allowed is strict
    talk = Talk(policy(escaping(), parity=True)).prepared()
    assert talk.ask("create_container", request).allowed is reference


def test_huge_pages_have_their_own_directory() -> None:
    rule = {"destination": "/huge", "source": "hugepages://2M/.+", "type": "bind", "options": []}
    mount = {**rule, "source": f"{HUGE_PAGES}2M/x"}
    assert create(creation(mounts=[mount]), container(mounts=[rule])).allowed
    for source in (mount["source"], "2M/x"):
        given = creation(mounts=[{**mount, "source": source}], hugePagesDir="")
        assert not create(given, container(mounts=[rule])).allowed


@pytest.mark.parametrize("source", ["plan9://", "plan9://named"])
def test_a_share_must_be_mounted_for_this_container(source: str) -> None:
    rule = {"destination": "/p9", "source": source, "type": "bind", "options": []}
    share = f"/run/gcs/c/{ID}/mounts/m1"
    request = creation(mounts=[{**rule, "source": share}])
    talk = Talk(policy(container(mounts=[rule]))).prepared()
    assert not talk.ask("create_container", request).allowed
    assert talk.ask("plan9_mount", target=share).allowed
    assert talk.ask("create_container", request).allowed


def test_a_sandbox_container_may_have_a_writable_sysfs() -> None:
    mount = {"destination": "/sys", "source": "sysfs", "type": "sysfs", "options": ["nosuid", "noexec", "nodev", "rw"]}
    assert not create(creation(mounts=[mount])).allowed
    assert create(creation(mounts=[mount], isSandboxContainer=True)).allowed
    changes: list[Json] = [{"source": "/x"}, {"destination": "/x"}, {"options": []}, {"type": "bind"}]
    for change in changes:
        assert not create(creation(mounts=[{**mount, **change}], isSandboxContainer=True)).allowed


def test_mounts_of_the_platform_are_allowed_as_it_says() -> None:
    platform = Platform((MountRule("/proc", "proc", "proc", ()),), (MountRule("/sys", "sysfs", "sysfs", ("rw",)),))
    proc = {"destination": "/proc", "source": "proc", "type": "proc", "options": []}
    sys = {"destination": "/sys", "source": "sysfs", "type": "sysfs", "options": ["rw"]}
    plain = Talk(policy(), platform=platform).prepared()
    assert not plain.ask("create_container", creation(mounts=[proc, sys])).allowed
    assert plain.ask("create_container", creation(mounts=[proc])).allowed
    elevated = Talk(policy(container(allow_elevated=True)), platform=platform).prepared()
    assert elevated.ask("create_container", creation(mounts=[proc, sys])).allowed
