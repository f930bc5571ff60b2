# SPDX-License-Identifier: Apache-2.0
"""What a specification may not ask for."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from parma_policy.annotation import ANNOTATION
from parma_shim.api import types_pb2
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


@pytest.mark.parametrize(
    "part",
    [
        {"mounts": [None]},
        {"mounts": [{"destination": {}}]},
        {"mounts": [{"source": "/x"}]},
        {"mounts": [{"destination": "/x", "source": 1}]},
        {"mounts": [{"destination": "/x", "options": [["rw"]]}]},
        {"linux": {"namespaces": ["pid"]}},
        {"annotations": {"io.parma.volume-limits": 5}},
        {"process": []},
    ],
    ids=str,
)
def test_a_part_of_the_wrong_type_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        checks.check_container({**SPEC, **part})


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
        ({"namespaces": [{"type": "network"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}]}, "ipc namespace"),
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


def test_a_network_namespace_that_exists_is_fine_and_the_hosts_is_not_in_a_pod_either() -> None:
    checks.check_container(spec(namespaces=[{"type": "network", "path": "/var/run/netns/x"}]))
    pod = {**spec(namespaces=[{"type": "pid"}]), "annotations": {checks.SANDBOX_ID: "p"}}
    with pytest.raises(Unsupported, match="host's network"):
        checks.check_container(pod)


USER: dict[str, Any] = {
    "namespaces": [{"type": "network"}, {"type": "user"}],
    "uidMappings": [{"hostID": 1000, "size": 65535}],
    "gidMappings": [{"hostID": 2000, "size": 65535}],
}


def test_a_user_namespace_has_mappings_of_both_kinds_and_mappings_a_namespace() -> None:
    checks.check_container(spec(**USER))
    for missing in ("uidMappings", "gidMappings"):
        with pytest.raises(Malformed, match="without mappings"):
            checks.check_container(spec(**{**USER, missing: []}))
    with pytest.raises(Malformed, match="without a user namespace"):
        checks.check_container(spec(**{**USER, "namespaces": [{"type": "network"}]}))


def test_pods_have_no_user_namespaces() -> None:
    with pytest.raises(Unsupported, match="pods"):
        checks.check_container({**spec(**USER), "annotations": POD})


def test_owners_that_the_host_would_have_to_map_are_refused() -> None:
    checks.check_rootfs([types_pb2.Mount(type="overlay", options=["index=off", "lowerdir=/uidmap=x"])])
    for option in ("uidmap=0:1000:65535", "gidmap=0:1000:65535"):
        with pytest.raises(Unsupported, match="idmapped root file system"):
            checks.check_rootfs([types_pb2.Mount(type="overlay", options=["index=off", option])])
    mapped = {"destination": "/data", "type": "bind", "source": "/x", "uidMappings": [{"size": 1}]}
    with pytest.raises(Unsupported, match="idmapped mounts"):
        checks.check_container({**SPEC, "mounts": [mapped]})


def test_a_pods_namespaces_may_be_named() -> None:
    namespaces = [{"type": "network", "path": "/var/run/netns/cni-1"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}]
    namespaces.append({"type": "pid"})
    checks.check_container({**spec(namespaces=namespaces), "annotations": POD})


@pytest.mark.parametrize(
    ("kind", "says"),
    [("network", "a confidential pod cannot share the host's network"), ("pid", "hostPID"), ("ipc", "hostIPC")],
)
def test_a_pod_shares_no_namespace_with_the_host(kind: str, says: str) -> None:
    namespaces = [{"type": name} for name in ("network", "pid", "ipc") if name != kind]
    with pytest.raises(Unsupported, match=says):
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


@pytest.mark.parametrize("part", ["linux", "process", "annotations"])
def test_parts_of_another_type_are_malformed(part: str) -> None:
    with pytest.raises(Malformed, match=part):
        checks.check_container({**SPEC, part: ["not", "an", "object"]})
