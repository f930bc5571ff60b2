# SPDX-License-Identifier: Apache-2.0
"""The OCI spec, as containerd writes it, becomes what the enforcer understands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parma_shim.guest_request import (
    cards_for_hooks,
    create_request,
    is_sandbox_container,
    process_request,
    resources_request,
    shares_pid_namespace,
)
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed

ID = "ab" * 32
PROCESS: dict[str, Any] = {"args": ["/bin/true"], "cwd": "/", "env": ["A=b"]}


def request(**changes: Any) -> pb.CreateContainerRequest:
    return create_request({"process": PROCESS, **changes}, guest_id=ID, stdin=False)


def test_a_spec_as_ctr_writes_it() -> None:
    oci = {
        "process": {
            "terminal": True,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 5, "gid": 6, "additionalGids": [6, 7], "umask": 0o77},
            "args": ["/bin/sh", "-c", "x"],
            "env": ["PATH=/bin"],
            "cwd": "/srv",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": True,
            "oomScoreAdj": -5,
            "apparmorProfile": "cri-containerd.apparmor.d",
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/etc/hosts", "source": "/var/lib/x/hosts", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "maskedPaths": ["/proc/kcore"],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "cgroupsPath": "/default/x",
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": 1 << 30},
                "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-3"},
                "pids": {"limit": 100},
            },
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        },
        "hooks": {"prestart": [{"path": "/bin/evil"}]},
    }
    found = create_request(oci, guest_id=ID, stdin=True)
    assert found == pb.CreateContainerRequest(
        container_id=ID,
        process=pb.Process(
            args=["/bin/sh", "-c", "x"],
            env=["PATH=/bin"],
            cwd="/srv",
            user=pb.User(uid=5, gid=6, additional_gids=[6, 7], umask=0o77),
            capabilities=pb.Capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"]),
            no_new_privileges=True,
            rlimits=[pb.Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=512)],
            oom_score_adj=-5,
            terminal=True,
            console_width=80,
            console_height=24,
            stdin=True,
        ),
        mounts=[
            pb.Mount(
                destination="/etc/hosts",
                type="bind",
                source=f"/run/gcs/c/{ID}/sandboxMounts/etc/hosts",
                options=["rbind", "ro"],
            )
        ],
        readonly_rootfs=True,
        hostname="box",
        seccomp=json.dumps({"defaultAction": "SCMP_ACT_ERRNO"}, separators=(",", ":")).encode(),
        sysctls={"net.ipv4.ip_unprivileged_port_start": "0"},
        resources=pb.Resources(
            memory_limit=1 << 30, cpu_shares=1024, cpu_quota=50000, cpu_period=100000, pids_limit=100
        ),
    )


def test_what_is_not_given_is_not_sent() -> None:
    process = request(linux={"maskedPaths": ["x"]}).process
    assert not process.user.HasField("umask")
    assert not process.HasField("oom_score_adj")
    assert resources_request({"memory": {"limit": 0}, "cpu": {}, "pids": None}) == pb.Resources()


def test_a_container_from_which_nothing_is_hidden_is_privileged() -> None:
    assert request(linux={}).privileged
    assert not request(linux={"maskedPaths": ["/proc/kcore"]}).privileged
    assert not request(linux={"readonlyPaths": ["/proc/sys"]}).privileged


def test_paths_of_the_image_are_hidden_as_asked_and_those_of_the_kernel_as_the_guest_has_them() -> None:
    hidden = request(linux={"maskedPaths": ["/proc/kcore", "/bin/ls"], "readonlyPaths": ["/sys/firmware", "/tmp"]})
    assert (list(hidden.masked_in_image), list(hidden.readonly_in_image)) == (["/bin/ls"], ["/tmp"])


def test_a_recursively_read_only_mount_is_read_only() -> None:
    mount = {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "rprivate", "rro"]}
    assert list(request(mounts=[mount]).mounts[0].options) == ["rbind", "rprivate", "ro"]


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/dev", "type": "bind", "source": "/dev"},
        {"destination": "/proc", "source": "/proc", "options": ["rbind"]},
        {"destination": "/dev/null", "type": "tmpfs"},
        {"destination": "/run", "type": "none", "options": ["bind"]},
    ],
)
def test_a_mount_over_the_enforcers_own_is_passed_on_to_be_refused(mount: dict[str, Any]) -> None:
    assert len(request(mounts=[mount]).mounts) == 1


@pytest.mark.parametrize(
    "oci",
    [
        {},
        {"process": None},
        {"process": {"args": "ls"}, "linux": 5},
        {"process": {"args": [5]}},
        {"process": {**PROCESS, "user": {"uid": -1}}},
        {"process": {**PROCESS, "rlimits": [{"type": "RLIMIT_NOFILE"}]}},
        {"process": PROCESS, "mounts": [{}]},
        {"process": PROCESS, "mounts": [5]},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(oci: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        create_request(oci, guest_id=ID, stdin=False)


def test_a_process_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(Malformed):
        process_request({"args": ["x"], "consoleSize": {"width": "wide"}}, stdin=False)


def test_pods_are_recognised() -> None:
    assert is_sandbox_container({"annotations": {"io.kubernetes.cri.container-type": "sandbox"}})
    assert not is_sandbox_container({})
    assert shares_pid_namespace({"linux": {"namespaces": [{"type": "pid", "path": "/proc/5/ns/pid"}]}})
    assert not shares_pid_namespace({"linux": {"namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/x"}]}})


def test_nerdctls_hooks_want_a_card_for_each_network() -> None:
    def spec(networks: str, hooks: object, path: str = "") -> dict[str, Any]:
        namespace = {"type": "network", **({"path": path} if path else {})}
        return {
            "annotations": {"nerdctl/networks": networks},
            "hooks": {"createRuntime": hooks},
            "linux": {"namespaces": [namespace]},
        }

    hook = [{"path": "/hook"}]
    assert cards_for_hooks(spec('["bridge", "other"]', hook)) == 2
    assert cards_for_hooks(spec('["none"]', hook)) == 0
    assert cards_for_hooks(spec('["bridge"]', [])) == 0
    assert cards_for_hooks(spec('["bridge"]', hook, "/run/netns/x")) == 0
    assert cards_for_hooks(spec("not JSON", hook)) == 0
    assert cards_for_hooks(spec("{}", hook)) == 0


@pytest.mark.parametrize(
    "limits",
    [{"memory": [1]}, {"pids": {"limit": "many"}}, {"cpu": {"shares": -1}}, {"cpu": {"quota": 1e400}}],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="limits"):
        resources_request(limits)
