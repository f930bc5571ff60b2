# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  (what must raise is the end of a context, or the last of several steps)
"""The container group over fakes: order of life, roll-back, poison, what crun is given."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from parma_guest import requests
from parma_guest.attest.endorsements import Endorsements
from parma_guest.attest.service import DeviceNode
from parma_guest.decisions import Verdict
from parma_guest.owners import IdMapping, UserNamespace
from parma_guest.processes import Process
from parma_guest.requests import MountDevice, MountOverlay, MountScratch, SignalProcess
from parma_guest.values import Capabilities, ExecId, LayerTarget, Resources, RootHash
from parma_wire import guest_pb2 as pb
from parma_wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
    Unavailable,
    Unsupported,
)
from tests.guest.fakes import CONTAINER, HASH, OTHER, Rig, never

INIT = ExecId("")
LAYER = LayerTarget("/run/mounts/scsi/m0")
TOP = LayerTarget("/run/mounts/scsi/m1")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.set_policy()
    return rig


def mount(rig: Rig, target: LayerTarget = LAYER, lun: int = 0, blocks: int = 10) -> None:
    rig.group.storage.mount_device(MountDevice(lun, target, RootHash(HASH), blocks))


def rootfs(rig: Rig) -> None:
    mount(rig)
    mount(rig, TOP, 1)
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))
    rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (TOP, LAYER)))


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


def creation(**fields: Any) -> requests.CreateContainer:
    process = {"args": ["/bin/app"], "env": ["A=1", "B=2"], **fields.pop("process", {})}
    message = pb.CreateContainerRequest(container_id=CONTAINER, process=pb.Process(**process), **fields)
    return requests.create_container(message)


def execution(exec_id: str = "one", **process: Any) -> requests.ExecProcess:
    message = pb.ExecProcessRequest(
        container_id=CONTAINER, exec_id=exec_id, process=pb.Process(**{"args": ["/bin/ls"], **process})
    )
    return requests.exec_process(message)


def running(rig: Rig, **fields: Any) -> None:
    rootfs(rig)
    rig.group.create(creation(**fields))
    rig.group.start(CONTAINER)


def test_a_whole_life_leaves_nothing(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution())
    for child in rig.runtime.children:
        child.finish(0)
    assert rig.group.wait(CONTAINER, INIT, never).code == 0
    rig.group.delete_process(CONTAINER, ExecId("one"))
    rig.group.delete(CONTAINER)
    rig.group.storage.unmount_overlay(CONTAINER)
    rig.group.storage.unmount_scratch(CONTAINER)
    rig.group.storage.unmount_device(LAYER)
    rig.group.storage.unmount_device(TOP)
    assert rig.kernel.mounts == []
    assert rig.mapper.devices == {}
    assert rig.runtime.containers == {}
    assert rig.devices.forgotten == ["/dev/sd7", "/dev/sd0", "/dev/sd1"]
    assert rig.state == (
        *("mount_device", "mount_device", "rw_mount_device", "scratch_mount", "mount_overlay", "create_container"),
        *("exec_in_container", "shutdown_container", "unmount_overlay", "scratch_unmount", "rw_unmount_device"),
        *("unmount_device", "unmount_device"),
    )


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


def test_nothing_can_be_done_out_of_order(rig: Rig) -> None:
    with pytest.raises(FailedPrecondition, match="no scratch"):
        rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (LAYER,)))
    with pytest.raises(FailedPrecondition, match="no root file system"):
        rig.group.create(creation())
    rootfs(rig)
    for act in (
        lambda: rig.group.start(CONTAINER),
        lambda: rig.group.storage.unmount_overlay(OTHER),
        lambda: rig.group.storage.unmount_scratch(OTHER),
        lambda: rig.group.storage.unmount_device(LayerTarget("/run/mounts/scsi/m5")),
        lambda: rig.group.execute(execution()),
    ):
        with pytest.raises(NotFound):
            act()
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_device(LAYER)
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_scratch(CONTAINER)
    rig.group.create(creation())
    with pytest.raises(FailedPrecondition, match="in use"):
        rig.group.storage.unmount_overlay(CONTAINER)
    with pytest.raises(FailedPrecondition, match="not been started"):
        rig.group.execute(execution())
    rig.group.start(CONTAINER)
    with pytest.raises(FailedPrecondition, match="before"):
        rig.group.start(CONTAINER)
    with pytest.raises(FailedPrecondition, match="running"):
        rig.group.delete(CONTAINER)
    assert rig.enforcer.poisoned == ""


@pytest.mark.parametrize("target", [LAYER, TOP])
def test_one_mount_point_and_one_disk_are_used_once(rig: Rig, target: LayerTarget) -> None:
    mount(rig)
    with pytest.raises(FailedPrecondition):
        mount(rig, target, 0)
    with pytest.raises(FailedPrecondition):
        rig.group.storage.mount_scratch(MountScratch(CONTAINER, 0, None))
    assert rig.state == ("mount_device",)


def test_a_process_that_nobody_waits_for_any_more_is_not_begun(rig: Rig) -> None:
    running(rig)
    with pytest.raises(DeadlineExceeded):
        rig.group.execute(execution("one"), lambda: 0.0)
    assert len(rig.runtime.children) == 1
    rig.group.execute(execution("one"), lambda: 0.1)
    assert len(rig.runtime.children) == 2


def test_ids_are_never_used_again(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution("one"))
    rig.runtime.children[1].finish(0)
    rig.group.delete_process(CONTAINER, ExecId("one"))
    with pytest.raises(AlreadyExists):
        rig.group.execute(execution("one"))
    rig.runtime.children[0].finish(0)
    rig.group.delete(CONTAINER)
    with pytest.raises(AlreadyExists):
        rig.group.create(creation())


@pytest.mark.parametrize(
    "point", ["mount_device", "rw_mount_device", "scratch_mount", "mount_overlay", "create_container"]
)
def test_a_denial_leaves_no_trace(rig: Rig, point: str) -> None:
    rig.engine.deny.add(point)
    with pytest.raises(Denied, match=f"{point} denied: because"):
        rootfs(rig)
        rig.group.create(creation())
    before = rig.state
    mounts = len(rig.kernel.mounts)
    rig.engine.deny.clear()
    assert point not in before
    assert mounts == {"mount_device": 0, "rw_mount_device": 2, "scratch_mount": 2, "mount_overlay": 3}.get(point, 4)
    assert rig.runtime.containers == {}


def test_a_disk_that_is_too_small_is_refused_before_anything_is_set_up(rig: Rig) -> None:
    with pytest.raises(Malformed, match="too small"):
        mount(rig, blocks=64 * 256)
    assert rig.mapper.devices == {}


def test_a_layer_that_cannot_be_mounted_is_taken_back_and_can_be_tried_again(rig: Rig) -> None:
    rig.kernel.broken.add(LAYER)
    with pytest.raises(Unavailable, match="does not verify"):
        mount(rig)
    assert rig.mapper.devices == {}
    assert list(rig.state) == []
    rig.kernel.broken.clear()
    mount(rig)
    assert rig.state == ("mount_device",)


@pytest.mark.parametrize("broken", ["integrity", "crypt"])
def test_scratch_that_cannot_be_made_is_taken_back(rig: Rig, broken: str) -> None:
    rig.mapper.broken.add(broken)
    with pytest.raises(Unavailable):
        rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))
    assert rig.mapper.devices == {}
    assert rig.state == ()
    rig.mapper.broken.clear()
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))


def test_a_layer_that_cannot_be_taken_back_poisons(rig: Rig) -> None:
    rig.kernel.broken.add(LAYER)
    rig.mapper.stuck.add("layer")
    with pytest.raises(Unavailable, match="taking it back failed"):
        mount(rig)
    with pytest.raises(FailedPrecondition, match="no more changes"):
        mount(rig, TOP, 1)


@pytest.mark.parametrize(
    ("stuck", "act"),
    [
        (str(LAYER), lambda rig: rig.group.storage.unmount_device(LAYER)),
        (f"/run/gcs/c/{CONTAINER}", lambda rig: rig.group.storage.unmount_scratch(CONTAINER)),
    ],
)
def test_a_failed_unmount_poisons(rig: Rig, stuck: str, act: Any) -> None:
    mount(rig)
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, None, 1 << 20))
    before = rig.state
    rig.kernel.stuck.add(stuck)
    with pytest.raises(Unavailable):
        act(rig)
    assert rig.state == before
    with pytest.raises(FailedPrecondition, match="no more changes"):
        mount(rig, TOP, 1)


def test_crun_refusing_changes_nothing_and_its_reason_is_told(rig: Rig) -> None:
    rootfs(rig)
    before = rig.state
    rig.runtime.fail.add("create")
    with pytest.raises(ParmaError, match="crun create failed: because"):
        rig.group.create(creation())
    assert rig.state == before
    rig.runtime.fail.clear()
    rig.group.create(creation())
    rig.runtime.fail.add("start")
    with pytest.raises(ParmaError, match="crun start failed"):
        rig.group.start(CONTAINER)
    rig.group.delete(CONTAINER)


def test_a_container_that_cannot_be_deleted_poisons(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(1)
    rig.runtime.fail.add("delete")
    with pytest.raises(Unavailable):
        rig.group.delete(CONTAINER)
    assert "could not be removed" in rig.enforcer.poisoned


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


def test_a_signal_for_all_needs_the_policy_for_each_process(rig: Rig) -> None:
    running(rig)
    rig.group.execute(execution("one"))
    rig.group.execute(execution("two", args=["/bin/cat"]))
    rig.engine.requests.clear()
    rig.group.signal(SignalProcess(CONTAINER, INIT, 9, all=True))
    asked = [(request["isInitProcess"], request["argList"]) for _, request in rig.engine.requests]
    assert asked == [(True, ["/bin/app"]), (False, ["/bin/ls"]), (False, ["/bin/cat"])]


def test_a_signal_to_a_process_that_has_ended_is_not_found(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(0)
    with pytest.raises(NotFound, match="already finished"):
        rig.group.signal(SignalProcess(CONTAINER, INIT, 9, all=False))


def test_exec_in_a_stopped_container_fails(rig: Rig) -> None:
    running(rig)
    rig.runtime.children[0].finish(0)
    with pytest.raises(FailedPrecondition, match="stopped"):
        rig.group.execute(execution())


def test_any_number_of_waiters_get_the_status_and_a_gone_one_leaves(rig: Rig) -> None:
    running(rig)
    codes: list[int] = []
    waiters = [
        threading.Thread(target=lambda: codes.append(rig.group.wait(CONTAINER, INIT, never).code)) for _ in range(5)
    ]
    for waiter in waiters:
        waiter.start()
    gone: list[Any] = []
    cancelled = threading.Event()

    def leave() -> None:
        with pytest.raises(NotFound):
            rig.group.wait(CONTAINER, INIT, gone.append)
        cancelled.set()

    leaver = threading.Thread(target=leave)
    leaver.start()
    while not gone:
        cancelled.wait(0.01)
    gone[0]()
    assert cancelled.wait(10)
    rig.runtime.children[0].finish(42)
    for waiter in [*waiters, leaver]:
        waiter.join(10)
    assert codes == [42] * 5
    assert rig.group.wait(CONTAINER, INIT, never).code == 42


def test_waits_that_were_given_up_leave_nothing_behind(rig: Rig) -> None:
    running(rig)
    callbacks = rig.runtime.children[0]._callbacks
    before = list(callbacks)
    for _ in range(10):
        with pytest.raises(NotFound):
            rig.group.wait(CONTAINER, INIT, lambda cancel: cancel())
    assert callbacks == before


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


def test_an_oom_kill_is_told_apart_from_another_kill(rig: Rig, tmp_path: Path) -> None:
    running(rig)
    directory = tmp_path / CONTAINER
    directory.mkdir()
    (directory / "memory.events").write_text("oom 1\noom_kill 1\n")
    (directory / "cgroup.kill").write_text("")
    rig.runtime.children[0].finish(137)
    status = rig.group.wait(CONTAINER, INIT, never)
    assert (status.code, status.oom_killed) == (137, True)
    assert (directory / "cgroup.kill").read_text() == "1"  # whoever is left in the container goes too


def test_an_exec_that_was_killed_after_an_earlier_want_of_memory_was_not_killed_for_that(
    rig: Rig, tmp_path: Path
) -> None:
    running(rig)
    directory = tmp_path / CONTAINER
    directory.mkdir()
    (directory / "memory.events").write_text("oom 1\noom_kill 1\n")
    rig.group.execute(execution())
    rig.runtime.children[1].finish(137)
    status = rig.group.wait(CONTAINER, ExecId("one"), never)
    assert (status.code, status.oom_killed) == (137, False)


def test_another_container_may_share_the_first_ones_processes(rig: Rig) -> None:
    running(rig, sandbox_container=True)
    rig.group.storage.mount_scratch(MountScratch(OTHER, None, 1 << 20))
    rig.group.storage.mount_overlay(MountOverlay(OTHER, (TOP, LAYER)))
    second = creation()._replace(container=OTHER, pid_namespace_of=CONTAINER)
    rig.group.create(second)
    namespaces = rig.runtime.containers[OTHER]["linux"]["namespaces"]
    assert {"type": "pid", "path": "/proc/1000/ns/pid"} in namespaces
    assert dict(rig.engine.requests)["create_container"]["sandboxDir"] == f"/run/gcs/c/{CONTAINER}/sandboxMounts"


def test_a_container_that_joined_a_process_which_ended_meanwhile_is_not_kept(rig: Rig) -> None:
    running(rig)
    rig.group.storage.mount_scratch(MountScratch(OTHER, 8, None))
    rig.group.storage.mount_overlay(MountOverlay(OTHER, (TOP, LAYER)))
    launch = rig.runtime.create

    def create(*arguments: Any) -> Any:
        rig.runtime.children[0].finish(0)  # from here on its number may be another process's
        return launch(*arguments)

    rig.runtime.create = create  # type: ignore[assignment,method-assign]
    with pytest.raises(FailedPrecondition, match="stopped meanwhile"):
        rig.group.create(creation()._replace(container=OTHER, pid_namespace_of=CONTAINER))
    assert OTHER not in rig.runtime.containers
    assert not rig.enforcer.poisoned


def test_a_process_that_lives_on_when_its_container_has_ended_meanwhile_is_not_kept(rig: Rig) -> None:
    running(rig)
    launch = rig.runtime.execute

    def execute(*arguments: Any) -> Any:
        rig.runtime.children[0].finish(0)  # from here on its number may be another process's, and that one's namespaces
        return launch(*arguments)

    rig.runtime.execute = execute  # type: ignore[assignment,method-assign]
    with pytest.raises(FailedPrecondition, match="stopped meanwhile"):
        rig.group.execute(execution())
    with pytest.raises(NotFound):
        rig.group.delete_process(CONTAINER, ExecId("one"))
    assert not rig.enforcer.poisoned


def test_a_process_that_ended_with_its_container_has_run(rig: Rig) -> None:
    running(rig)
    launch = rig.runtime.execute

    def execute(*arguments: Any) -> Any:
        launched = launch(*arguments)
        for child in reversed(rig.runtime.children):  # init ends last
            child.finish(0)
        return launched

    rig.runtime.execute = execute  # type: ignore[assignment,method-assign]
    rig.group.execute(execution())
    rig.group.delete_process(CONTAINER, ExecId("one"))


def test_limits_can_be_changed_before_the_start_and_not_after_the_end(rig: Rig) -> None:
    rootfs(rig)
    rig.group.create(creation())
    rig.group.update(CONTAINER, Resources(pids_limit=5))
    assert rig.runtime.documents[-1] == {"pids": {"limit": 5}}
    rig.runtime.children[0].finish(0)
    with pytest.raises(FailedPrecondition, match="stopped"):
        rig.group.update(CONTAINER, Resources(pids_limit=6))


def test_processes_are_listed_while_others_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    running(rig)
    rig.group.execute(execution("one"))

    execs = rig.group._members.containers[CONTAINER].execs

    def exited(process: Process) -> bool:
        if not process.exec_id.is_init:  # in the middle of the listing
            execs[ExecId("two")] = process
        return False

    (rig.host._directory / CONTAINER).mkdir()
    (rig.host._directory / CONTAINER / "cgroup.procs").write_text("1000\n1001\n")
    monkeypatch.setattr(Process, "exited", property(exited))
    assert rig.group.processes(CONTAINER) == [(1000, "", True), (1001, "one", False)]


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


@pytest.mark.parametrize("step", ["prepare", "serve"])
def test_a_container_whose_attestation_cannot_be_served_is_not_kept(rig: Rig, step: str) -> None:
    rootfs(rig)
    rig.attestation.fail.add(step)
    with pytest.raises(Unavailable, match=step):
        rig.group.create(creation())
    assert rig.runtime.containers == {}
    assert rig.enforcer.poisoned == ""
    if step == "serve":
        assert rig.runtime.calls == ["create", "delete"]
        assert rig.attestation.calls[-1] == ("close",)
    rig.attestation.fail.clear()
    rig.group.create(creation())


def test_a_container_that_crun_refuses_leaves_no_device(rig: Rig) -> None:
    rootfs(rig)
    rig.runtime.fail.add("create")
    with pytest.raises(ParmaError):
        rig.group.create(creation())
    assert rig.attestation.calls[-1] == ("close",)


def test_endorsements_are_for_later_containers_and_need_a_policy(rig: Rig, tmp_path: Path) -> None:
    rig.group.put_endorsements(Endorsements("a", "b"))
    assert rig.attestation.endorsements == [("a", "b")]
    (tmp_path / "fresh").mkdir()
    with pytest.raises(FailedPrecondition):
        Rig(tmp_path / "fresh").group.put_endorsements(Endorsements())
