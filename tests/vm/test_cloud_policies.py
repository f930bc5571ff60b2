# SPDX-License-Identifier: Apache-2.0
"""Policies written for the cloud service, as ``az confcom`` writes them, and what containerd asks for in a pod.

From the OCI spec through the shim's request, the enforcer's reading of it and the question to the framework.
"""

from __future__ import annotations

from typing import Any

import pytest

from parma_guest import decisions, requests
from parma_guest.users import Identity
from parma_guest.values import ContainerId
from parma_policy.framework import Decision
from parma_policy.reader import load
from parma_shim.guest_request import copied_mounts, create_request
from parma_shim.host_mounts import Names
from tests.policy.builders import CAPS, ID, Talk, container, text
from tests.policy.compat_cases import confcom_text

POD = "ee" * 32
KUBELET = "/var/lib/kubelet/pods/0a1b"
SANDBOX_FILES = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/1"
CLOUD = [
    {"destination": "/cache", "source": "sandbox:///tmp/atlas/emptydir/.+", "options": ["rbind", "rshared", "rw"]},
    {"destination": "/tls", "source": "sandbox:///tmp/atlas/secretsVolume/.+", "options": ["rbind", "rshared", "ro"]},
    {
        "destination": "/etc/resolv.conf",
        "source": "sandbox:///tmp/atlas/resolvconf/.+",
        "options": ["rbind", "rshared", "rw"],
    },
]


def cloud_policy(mounts: list[dict[str, Any]] = CLOUD, *, pretty: bool = False) -> bytes:
    """As confcom writes it."""
    listed = [{"type": "bind", **mount} for mount in mounts]
    return confcom_text(container(command=["/bin/app"], mounts=listed), pretty=pretty).encode()


def bind(source: str, destination: str, mode: str = "rw") -> dict[str, Any]:
    return {"source": source, "destination": destination, "type": "bind", "options": ["rbind", "rprivate", mode]}


OWN = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
    bind(f"{SANDBOX_FILES}/shm", "/dev/shm"),
]
EVERYWHERE = [
    bind(f"{KUBELET}/etc-hosts", "/etc/hosts"),
    bind(f"{SANDBOX_FILES}/hostname", "/etc/hostname"),
    bind(f"{SANDBOX_FILES}/resolv.conf", "/etc/resolv.conf"),
    bind(f"{KUBELET}/containers/main/0123abcd", "/dev/termination-log"),
]
"""What kubelet and containerd add to every container of a pod."""
EMPTY_DIR = bind(f"{KUBELET}/volumes/kubernetes.io~empty-dir/cache", "/cache")
SECRET = bind(f"{KUBELET}/volumes/kubernetes.io~secret/tls", "/tls", "ro")


def spec(*mounts: dict[str, Any]) -> dict[str, Any]:
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), CAPS)
    process = {
        "args": ["/bin/app"],
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/srv",
        "user": {"uid": 1000, "gid": 1000},
        "capabilities": capabilities,
        "noNewPrivileges": True,
    }
    return {"process": process, "mounts": [*OWN, *EVERYWHERE, *mounts], "linux": {"maskedPaths": ["/proc/kcore"]}}


def decide(data: bytes, oci: dict[str, Any]) -> Decision:
    """What the framework says of a container in a pod."""
    message = create_request(oci, guest_id=ID, stdin=False, sandbox=POD, names=Names.of(data))
    request = requests.create_container(message)
    identity = Identity("app", ((1000, "app"),))
    talk = Talk(load(data)).prepared()
    return talk.ask("create_container", decisions.create_container(request, identity, ContainerId(POD)))


@pytest.mark.parametrize("pretty", [False, True])
def test_an_unmodified_policy_allows_its_volumes_in_a_pod(pretty: bool) -> None:
    decision = decide(cloud_policy(pretty=pretty), spec(EMPTY_DIR, SECRET))
    assert decision.allowed, decision.message()


def test_a_volume_that_it_does_not_list_is_denied() -> None:
    cache = EMPTY_DIR
    decision = decide(cloud_policy(CLOUD[1:]), spec(cache, SECRET))
    assert not decision.allowed
    assert "/cache" in decision.message()
    assert not decide(cloud_policy(), spec({**cache, "destination": "/elsewhere"})).allowed
    assert not decide(cloud_policy(), spec({**cache, "options": ["rbind", "rprivate", "ro"]})).allowed


def test_what_it_cannot_know_is_not_asked_for_nor_copied() -> None:
    names = Names.of(cloud_policy())
    oci = spec(EMPTY_DIR, SECRET)
    copied = {mount.place.rpartition("/")[0] for mount in copied_mounts(oci, names)}
    assert copied == {"/tmp/atlas/resolvconf", "/tmp/atlas/secretsVolume"}
    message = create_request(oci, guest_id=ID, stdin=False, sandbox=POD, names=names)
    assert {mount.destination for mount in message.mounts} == {"/etc/resolv.conf", "/cache", "/tls"}


def test_what_it_does_name_is_asked_for() -> None:
    hosts = {"destination": "/etc/hosts", "source": "sandbox:///etc/hosts", "options": ["rbind", "rshared", "rw"]}
    data = cloud_policy([*CLOUD, hosts])
    assert decide(data, spec(EMPTY_DIR)).allowed
    message = create_request(spec(), guest_id=ID, stdin=False, sandbox=POD, names=Names.of(data))
    assert {mount.destination for mount in message.mounts} == {"/etc/resolv.conf", "/etc/hosts"}


def test_a_policy_made_for_this_platform_is_asked_as_containerd_asked() -> None:
    listed = {"destination": "/cache", "source": "sandbox:///volumes/empty-dir/cache", "type": "bind"}
    data = text(container(mounts=[{**listed, "options": ["rbind", "rprivate", "rw"]}])).encode()
    assert Names.of(data) == Names()
    message = create_request(spec(EMPTY_DIR), guest_id=ID, stdin=False, sandbox=POD, names=Names.of(data))
    found = {mount.destination: (mount.source, list(mount.options)) for mount in message.mounts}
    source = f"/run/gcs/c/{POD}/sandboxMounts/volumes/empty-dir/cache"
    assert found["/cache"] == (source, ["rbind", "rprivate", "rw"])
    assert set(found) == {"/cache", *(mount["destination"] for mount in EVERYWHERE)}


def test_a_policy_that_knows_both_names_is_asked_by_the_one_of_this_platform() -> None:
    both = [*CLOUD, {**CLOUD[0], "source": "sandbox:///volumes/empty-dir/.+"}]
    assert not Names.of(cloud_policy(both)).cloud_empty_dirs
    assert decide(cloud_policy(both), spec(EMPTY_DIR)).allowed
