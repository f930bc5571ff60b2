# SPDX-License-Identifier: Apache-2.0
"""What a container is made of: what the policy is asked, what it has no words for, what crun is given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.service import DeviceNode
from parma_guest.decisions import Verdict
from parma_guest.owners import IdMapping, UserNamespace
from parma_guest.requests import MountOverlay, MountScratch
from parma_guest.values import Capabilities
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Unsupported
from tests.guest.fakes import CONTAINER, HASH, OTHER, Rig
from tests.guest.group_steps import LAYER, TOP, creation, execution, mount, rootfs, running


def test_no_policy_can_have_allowed_a_user_namespace(rig: Rig) -> None:
    mount(rig)
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))
    mapping = (IdMapping(0, 1000, 10),)
    with pytest.raises(Unsupported, match="a user namespace"):
        rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (LAYER,), UserNamespace(mapping, mapping)))
    assert not rig.overlays.exists(CONTAINER)
    rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (LAYER,)))  # and nothing is left of it


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"sysctls": {"net.ipv4.tcp_syncookies": "1", "kernel.msgmax": "1"}}, "the sysctl kernel.msgmax"),
        ({"masked_in_image": ["/bin/ls"]}, "hidden or read-only"),
        ({"readonly_in_image": ["/tmp"]}, "hidden or read-only"),
    ],
)
def test_no_policy_can_have_allowed_what_it_has_no_words_for(rig: Rig, fields: dict[str, Any], what: str) -> None:
    rootfs(rig)
    with pytest.raises(Unsupported, match=what):
        rig.group.create(creation(**fields))
    assert not rig.runtime.containers
    rig.group.create(creation(sysctls={"net.ipv4.tcp_syncookies": "1"}))


def test_the_overlay_has_the_layers_in_the_order_of_the_request(rig: Rig) -> None:
    rootfs(rig)
    base = f"/run/gcs/c/{CONTAINER}"
    overlay = rig.kernel.mounts[-1]
    assert overlay[1] == f"{base}/rootfs"
    assert overlay[4] == (
        f"lowerdir={TOP}:{LAYER},upperdir={base}/scratch/{CONTAINER}/upper,workdir={base}/scratch/{CONTAINER}/work,"
        "index=off,metacopy=off,xino=off"
    )


def test_each_point_gets_the_documents_that_policies_know(rig: Rig) -> None:
    running(rig, mounts=[pb.Mount(destination="/data", type="tmpfs", source="tmpfs", options=["size=1m"])])
    asked = dict(rig.engine.requests)
    assert asked["mount_device"] == {
        "target": str(TOP),
        "deviceHash": HASH,
        "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
    }
    assert asked["rw_mount_device"] == {
        "target": f"/run/gcs/c/{CONTAINER}",
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "ext4",
        "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
    }
    assert asked["scratch_mount"] == {"target": f"/run/gcs/c/{CONTAINER}/scratch/{CONTAINER}", "encrypted": True}
    assert asked["mount_overlay"] == {
        "containerID": str(CONTAINER),
        "layerPaths": [str(TOP), str(LAYER)],
        "target": f"/run/gcs/c/{CONTAINER}/rootfs",
    }
    created = asked["create_container"]
    assert created["user"] == {"id": "0", "name": "somebody"}
    assert created["groups"] == [{"id": "0", "name": "g0"}]
    assert created["umask"] == "0022"
    assert created["sandboxDir"] == f"/run/gcs/c/{CONTAINER}/sandboxMounts"
    assert created["devices"] == []
    assert created["seccompProfileSHA256"] == ""
    assert created["mounts"] == [{"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}]


def test_only_the_environment_and_capabilities_that_the_policy_keeps_reach_crun(rig: Rig) -> None:
    rig.engine.verdict = Verdict(
        allowed=True,
        env=("B=2", "C=3"),
        capabilities=Capabilities(("CAP_KILL",), (), (), ("CAP_KILL", "CAP_SYS_ADMIN"), ()),
        stdio=True,
    )
    rootfs(rig)
    caps = pb.Capabilities(bounding=["CAP_CHOWN", "CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"])
    rig.group.create(creation(process={"capabilities": caps}))
    process = rig.runtime.containers[CONTAINER]["process"]
    assert process["env"] == ["B=2", "HOME=/"]
    assert process["capabilities"] == {
        "bounding": ["CAP_KILL"],
        "effective": [],
        "inheritable": [],
        "permitted": ["CAP_KILL"],
        "ambient": [],
    }


def test_denied_stdio_means_null_and_no_terminal(rig: Rig) -> None:
    rig.engine.verdict = Verdict(allowed=True, stdio=False)
    rootfs(rig)
    with pytest.raises(Denied, match="terminal"):
        rig.group.create(creation(process={"terminal": True}))
    rig.group.create(creation(process={"stdin": True}))
    assert not rig.runtime.plans[0].allowed
    rig.group.start(CONTAINER)
    rig.engine.verdict = Verdict(allowed=True, stdio=True)  # an exec cannot widen what its container has
    rig.group.execute(execution())
    assert not rig.runtime.plans[1].allowed


def test_a_bind_mount_must_come_from_the_sandbox_directory(rig: Rig) -> None:
    rootfs(rig)
    inside = f"/run/gcs/c/{CONTAINER}/sandboxMounts/a/b"
    for source in ("/etc", f"/run/gcs/c/{OTHER}/sandboxMounts/a", inside.rpartition("/a")[0], "/run/gcs/c"):
        with pytest.raises(Unsupported):
            rig.group.create(creation(mounts=[pb.Mount(destination="/d", type="bind", source=source)]))
    rig.group.create(creation(mounts=[pb.Mount(destination="/d", type="bind", source=inside, options=["ro"])]))
    assert rig.host.prepared == [inside]


def test_crun_gets_the_source_of_a_bind_mount_where_containers_cannot_exchange_it(rig: Rig) -> None:
    rootfs(rig)
    inside = f"/run/gcs/c/{CONTAINER}/sandboxMounts/a"
    mounts = [
        pb.Mount(destination="/t", type="tmpfs", source="tmpfs"),
        pb.Mount(destination="/d", type="bind", source=inside),
    ]
    held: list[set[str]] = []
    launch = rig.runtime.create

    def create(*arguments: Any) -> Any:
        held.append(set(rig.host.pinned_now))
        return launch(*arguments)

    rig.runtime.create = create  # type: ignore[assignment,method-assign]
    rig.group.create(creation(mounts=mounts))
    place = f"/run/gcs/pins/{CONTAINER}-1"
    assert held == [{place}]
    assert [mount["source"] for mount in rig.runtime.containers[CONTAINER]["mounts"][-2:]] == ["tmpfs", place]
    assert not rig.host.pinned_now


def test_another_container_may_share_the_first_ones_processes(rig: Rig) -> None:
    running(rig, sandbox_container=True)
    rig.group.storage.mount_scratch(MountScratch(OTHER, None, 1 << 20))
    rig.group.storage.mount_overlay(MountOverlay(OTHER, (TOP, LAYER)))
    second = creation()._replace(container=OTHER, pid_namespace_of=CONTAINER)
    rig.group.create(second)
    namespaces = rig.runtime.containers[OTHER]["linux"]["namespaces"]
    assert {"type": "pid", "path": "/proc/1000/ns/pid"} in namespaces
    assert dict(rig.engine.requests)["create_container"]["sandboxDir"] == f"/run/gcs/c/{CONTAINER}/sandboxMounts"


def test_what_the_policy_lets_a_container_reach_is_made_around_its_creation(rig: Rig) -> None:
    rootfs(rig)
    reachable, identity = frozenset({"/dev/sev-guest"}), b"i" * 32
    rig.engine.verdict = Verdict(allowed=True, attestation=reachable, identity=identity)
    rig.attestation.session.environment = ("B=ours", "C=3")
    rig.attestation.session.device = DeviceNode("/dev/sev-guest", 244, 1)
    pid = rig.group.create(creation())
    digest = hashlib.sha256(b"policy").digest()
    assert rig.attestation.calls == [("prepare", (reachable, identity), b"policy", digest), ("serve", pid)]
    spec = rig.runtime.containers[CONTAINER]
    assert spec["process"]["env"] == ["A=1", "HOME=/", "B=ours", "C=3"]
    assert spec["linux"]["devices"][0]["path"] == "/dev/sev-guest"
    rig.group.start(CONTAINER)
    rig.group.execute(execution(env=["C=host"]))
    assert rig.runtime.documents[-1]["env"] == ["HOME=/", "B=ours", "C=3"]
    for child in rig.runtime.children:
        child.finish(0)
    rig.group.delete(CONTAINER)
    assert rig.attestation.calls[-1] == ("close",)


def test_endorsements_are_for_later_containers_and_need_a_policy(rig: Rig, tmp_path: Path) -> None:
    rig.group.put_endorsements(Endorsements("a", "b"))
    assert rig.attestation.endorsements == [("a", "b")]
    (tmp_path / "fresh").mkdir()
    with pytest.raises(FailedPrecondition):
        Rig(tmp_path / "fresh").group.put_endorsements(Endorsements())
