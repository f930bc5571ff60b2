# SPDX-License-Identifier: Apache-2.0
"""``config.json`` and an exec's process: any JSON becomes requests to the guest, or one of our errors.

The first byte says how to read the others: as the text itself, or as changes to a specification that is right.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from parma_guest import oci, requests
from parma_shim import guest_request, pod_volumes
from parma_shim.host_mounts import Names
from parma_shim.task import checks, hooks
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed, ParmaError, Unsupported
from tests.fuzz.edits import edited_json

_ID = "ab" * 32
_ROOT = {"args": ["/bin/sh", "-c", "x"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
_PLAIN: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        **_ROOT,
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 5, "gid": 6, "additionalGids": [6, 7], "umask": 0o77},
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
        "noNewPrivileges": True,
        "oomScoreAdj": -5,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "hooks": {"createRuntime": [{"path": "/bin/hook", "args": ["hook"], "env": ["A=1"], "timeout": 5}]},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=64m", "mode=1777"]},
        {"destination": "/etc/hosts", "source": "/var/lib/x/hosts", "options": ["rbind", "ro"]},
    ],
    "annotations": {"io.parma.volume-limits": "cache=512Mi,tmp=1Gi", "nerdctl/networks": '["bridge"]'},
    "linux": {
        "maskedPaths": ["/proc/kcore"],
        "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}],
        "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}],
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 1 << 26, "swap": 1 << 27},
            "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0-1"},
            "pids": {"limit": 100},
            "blockIO": {"weight": 100},
        },
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]},
    },
}
_KUBELET = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~"
_IN_POD: dict[str, Any] = {
    "process": _ROOT,
    "annotations": {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "s",
        "io.parma.policy-file": "/etc/parma/policies/a.rego",
    },
    "mounts": [
        {"destination": "/cache", "source": f"{_KUBELET}empty-dir/cache", "options": ["rbind", "rw"]},
        {"destination": "/secret", "source": f"{_KUBELET}secret/s", "options": ["rbind", "ro"], "type": "bind"},
        {"destination": "/dev/termination-log", "source": "/v/pods/u/containers/c/0123abcd", "options": ["bind"]},
        {"destination": "/dev/shm", "source": "/run/s/shm", "type": "bind", "options": ["rbind"]},
    ],
    "linux": {"namespaces": [{"type": kind, "path": f"/proc/1/ns/{kind}"} for kind in ("pid", "ipc", "network")]},
}
_GOOD = (_PLAIN, _IN_POD)
_TEXT = len(_GOOD)

SEEDS = [
    *(bytes([_TEXT]) + json.dumps(spec).encode() for spec in _GOOD),
    bytes([_TEXT]) + b'{"process": {"args": ["x"]}, "linux": {"namespaces": [{"type": "network"}]}}',
    bytes([_TEXT]) + b"[" * 50,
    *(bytes([kind, place, what]) for kind in range(_TEXT) for place, what in ((0, 0), (9, 20), (30, 36))),
]


def target(data: bytes) -> None:
    """What the shim does with a specification, and the guest with the requests that come of it."""
    kind, rest = (data[0] if data else 0) % (_TEXT + 1), data[1:]
    text = rest if kind == _TEXT else json.dumps(edited_json(_GOOD[kind], rest)).encode()
    try:
        spec = checks.parse(text, "config.json")
    except Malformed:
        return
    with contextlib.suppress(Malformed, Unsupported):
        checks.check_container(spec)
        hooks.parse(spec, "id", "/bundle")
        guest_request.cards_for_hooks(spec)
        for made in (_create(spec, guest_request.is_sandbox_container(spec)), _overlay(spec), _sandbox(spec)):
            assert type(made).FromString(made.SerializeToString()) == made
    process = spec.get("process")
    if isinstance(process, dict):
        with contextlib.suppress(Malformed, Unsupported):
            checks.check_process(process)
            guest_request.process_request(process, stdin=False)
    resources = (spec.get("linux") or {}).get("resources") if isinstance(spec.get("linux"), dict) else None
    if isinstance(resources, dict):
        with contextlib.suppress(Malformed, Unsupported):
            checks.check_limits(resources)
            guest_request.resources_request(resources)


def _create(spec: dict[str, Any], in_pod: bool) -> pb.CreateContainerRequest:
    for names in (Names(), Names(cloud_resolv_conf=True, cloud_secrets=True)):
        copied = guest_request.copied_mounts(spec, names)
        made = guest_request.create_request(
            spec, guest_id=_ID, stdin=True, sandbox="cd" * 32 if in_pod else "", names=names
        )
        places = [f"sandboxMounts{mount.place}" for mount in copied]
        assert all(any(mount.source.endswith(place) for mount in made.mounts) for place in places)
    pod_volumes.empty_dirs(spec.get("mounts") or [])
    guest_request.shares_pid_namespace(spec)
    guest_request.network_namespace(spec)
    with contextlib.suppress(ParmaError):
        _check_guests(requests.create_container(made))
    return made


def _check_guests(request: requests.CreateContainer) -> None:
    """What crun would be given, had the policy allowed all of it: nothing that only the host's specification has."""
    found = oci.container(request, request.process.env, request.process.capabilities, {})
    assert set(found) <= {"ociVersion", "root", "process", "mounts", "linux", "hostname"}
    assert "devices" not in found["linux"]
    assert found["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert found["linux"]["cgroupsPath"].endswith(_ID)
    assert [space for space in found["linux"]["namespaces"] if "path" in space] == []
    assert bool(found["linux"]["maskedPaths"]) is not request.privileged
    json.dumps(found)


def _overlay(spec: dict[str, Any]) -> pb.MountOverlayRequest:
    return guest_request.overlay_request(spec, _ID, ["/run/mounts/scsi/m0"])


def _sandbox(spec: dict[str, Any]) -> pb.CreateSandboxRequest:
    return guest_request.sandbox_request(spec, guest_id=_ID)
