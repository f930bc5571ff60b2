# SPDX-License-Identifier: Apache-2.0
"""What a specification may not ask for."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from parma_policy.annotation import ANNOTATION
from parma_shim.task import checks
from parma_wire.errors import Malformed, Unsupported
from tests.shim.support import ROOT, SPEC

POD = {"io.kubernetes.cri.sandbox-id": "pod"}


def spec(**linux: Any) -> dict[str, Any]:
    made = copy.deepcopy(SPEC)
    made["linux"].update(linux)
    return made


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("io.parma.polcy", "did you mean io.parma.policy?"),
        ("io.parma.tee", "unknown annotation io.parma.tee"),
        ("io.parma.qemu", "known: io.parma.fragment-files, "),
    ],
)
def test_an_annotation_of_ours_that_means_nothing_is_refused(name: str, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        checks.check_container({**SPEC, "annotations": {name: "x"}})


def test_every_annotation_that_is_read_is_known() -> None:
    sources = [path.read_text() for path in (ROOT / "shim").rglob("*.py")]
    named = {ANNOTATION} | {name for text in sources for name in re.findall(r'"(io\.parma\.[a-z-]+)"', text)}
    assert named == checks.ANNOTATIONS
    documented = (ROOT / "docs/configuration.md").read_text()
    assert [name for name in named if f"`{name}`" not in documented] == []


def test_an_ordinary_specification_passes() -> None:
    checks.check_container(SPEC)


@pytest.mark.parametrize(
    ("linux", "word"),
    [
        ({"namespaces": [{"type": "pid"}]}, "--net-host"),
        ({"namespaces": [{"type": "network", "path": "/var/run/netns/x"}]}, "network namespace"),
        ({"namespaces": [{"type": "network"}, {"type": "user"}]}, "user namespaces"),
        ({"uidMappings": [{"hostID": 1}]}, "uidMappings"),
        ({"personality": {"domain": "LINUX32"}}, "personality"),
        ({"rootfsPropagation": "rshared"}, "propagation"),
        ({"devices": [{"path": "/dev/fuse"}]}, "devices"),
        ({"resources": {"hugepageLimits": [{"limit": 1}]}}, "hugepageLimits"),
        ({"resources": {"unified": {"memory.high": "1"}}}, "unified"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(linux: dict[str, Any], word: str) -> None:
    with pytest.raises(Unsupported, match=word):
        checks.check_container(spec(**linux))


def test_hooks_are_refused_and_empty_ones_are_not() -> None:
    with pytest.raises(Unsupported, match="createRuntime"):
        checks.check_container({**SPEC, "hooks": {"createRuntime": [{"path": "/x"}]}})
    checks.check_container({**SPEC, "hooks": {"createRuntime": []}})


def test_a_pods_namespaces_may_be_named() -> None:
    namespaces = [{"type": "network", "path": "/var/run/netns/cni-1"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}]
    checks.check_container({**spec(namespaces=namespaces), "annotations": POD})


def test_a_privileged_container_may_list_devices() -> None:
    checks.check_container(spec(devices=[{"path": "/dev/fuse"}], maskedPaths=None))


@pytest.mark.parametrize("process", [{}, {"args": []}, {"args": "sleep"}])
def test_a_process_needs_arguments(process: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        checks.check_container({**SPEC, "process": process})


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_json_that_is_no_object_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        checks.parse(text, "it")


@pytest.mark.parametrize("part", ["linux", "process", "annotations", "hooks"])
def test_parts_of_another_type_are_malformed(part: str) -> None:
    with pytest.raises(Malformed, match=part):
        checks.check_container({**SPEC, part: ["not", "an", "object"]})
