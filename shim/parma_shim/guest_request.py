# SPDX-License-Identifier: Apache-2.0
"""From the OCI spec that containerd wrote to the requests that the enforcer understands.

Nothing is decided here. What has a meaning in the guest is passed on for the policy to judge; what only has one on
this host (device cgroup rules, cgroup and namespace paths, hooks, AppArmor) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from parma_shim import pod_volumes
from parma_shim.host_mounts import HostMount, Names, host_mount, host_mounts
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Malformed

_NERDCTL_NETWORKS: Final = "nerdctl/networks"
_CONTAINER_TYPE: Final = "io.kubernetes.cri.container-type"

_OWN_MOUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "/proc": ("proc",),
    "/dev": ("tmpfs",),
    "/dev/pts": ("devpts",),
    "/dev/shm": ("tmpfs", "bind"),  # noqa: S108 - a path in the guest; Kubernetes binds the pod's
    "/dev/mqueue": ("mqueue", "bind"),
    "/sys": ("sysfs",),
    "/sys/fs/cgroup": ("cgroup", "cgroup2"),
    "/run": ("tmpfs",),
}
"""Mounts that every OCI spec asks for and that the enforcer makes by itself."""

_CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")

Document = Mapping[str, Any]


def create_request(
    oci: Document,
    *,
    guest_id: str,
    stdin: bool,
    sandbox: str = "",
    pid_namespace_of: str = "",
    names: Names = Names(),  # noqa: B008  # immutable
) -> pb.CreateContainerRequest:
    """The request for a container's ``config.json``; ``sandbox`` is its pod's id in the guest, if it has one.

    Raises Malformed when that is not what the OCI spec says.
    """
    try:
        request = _create_request(oci, guest_id, stdin, pid_namespace_of)
        request.mounts.extend(_mount(mount, guest_id, sandbox, names) for mount in _asked(oci, names))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise Malformed(f"the container's OCI spec makes no sense: {error}") from error
    return request


def overlay_request(oci: Document, guest_id: str, layer_targets: Sequence[str]) -> pb.MountOverlayRequest:
    """The request for a container's root file system; ``layer_targets`` has the top layer first. Raises Malformed."""
    linux = oci.get("linux") or {}
    try:
        return pb.MountOverlayRequest(
            container_id=guest_id,
            layer_targets=layer_targets,
            uid_mappings=[_mapping(item) for item in linux.get("uidMappings") or []],
            gid_mappings=[_mapping(item) for item in linux.get("gidMappings") or []],
        )
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise Malformed(f"the container's OCI spec makes no sense: {error}") from error


def sandbox_request(oci: Document, *, guest_id: str) -> pb.CreateSandboxRequest:
    """The request for a pod, by the ``config.json`` of its pause container. Raises Malformed as above."""
    try:
        return pb.CreateSandboxRequest(
            sandbox_id=guest_id,
            hostname=str(oci.get("hostname") or ""),
            sysctls=(oci.get("linux") or {}).get("sysctl") or {},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"the pod's OCI spec makes no sense: {error}") from error


def process_request(process: Document, *, stdin: bool) -> pb.Process:
    """The process of a container, or of an exec. Raises Malformed when that is not what the OCI spec says."""
    try:
        return _process(process, stdin)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise Malformed(f"the process's OCI spec makes no sense: {error}") from error


def resources_request(resources: Document) -> pb.Resources:
    """Limits that mean something in the guest. Host CPU numbers (cpuset) do not. Raises Malformed as above."""
    try:
        return _resources(resources)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Malformed(f"the limits make no sense: {error}") from error


def shares_pid_namespace(oci: Document) -> bool:
    """Whether the container is to join an existing pid namespace (its pod's)."""
    namespaces = (oci.get("linux") or {}).get("namespaces") or []
    return any(entry.get("type") == "pid" and entry.get("path") for entry in namespaces)


def copied_mounts(oci: Document, names: Names) -> list[HostMount]:
    """What is to be copied into the guest before the container is created."""
    return host_mounts([mount for mount in _asked(oci, names) if not _empty_dir(mount)], names)


def network_namespace(oci: Document) -> str:
    """The path of the network namespace that the container is to be in; empty for one without a network."""
    namespaces = (oci.get("linux") or {}).get("namespaces") or []
    return next((str(entry.get("path") or "") for entry in namespaces if entry.get("type") == "network"), "")


def cards_for_hooks(oci: Document) -> int:
    """How many interfaces hooks are to make in a network namespace that is the container's own.

    nerdctl says so in an annotation, a list of networks; those that make none have no other beside them.
    """
    hooks = oci.get("hooks") or {}
    if network_namespace(oci) or not (hooks.get("createRuntime") or hooks.get("prestart")):
        return 0
    try:
        networks = json.loads((oci.get("annotations") or {}).get(_NERDCTL_NETWORKS) or "[]")
    except ValueError:
        return 0
    return len([name for name in networks if name not in ("none", "host")]) if isinstance(networks, list) else 0


def is_sandbox_container(oci: Document) -> bool:
    """Whether this is a pod's pause container."""
    return (oci.get("annotations") or {}).get(_CONTAINER_TYPE) == "sandbox"


def _create_request(oci: Document, guest_id: str, stdin: bool, pid_namespace_of: str) -> pb.CreateContainerRequest:
    linux = oci.get("linux") or {}
    profile = linux.get("seccomp")
    return pb.CreateContainerRequest(
        container_id=guest_id,
        process=_process(oci["process"], stdin),
        readonly_rootfs=bool((oci.get("root") or {}).get("readonly")),
        hostname=str(oci.get("hostname") or ""),
        seccomp=json.dumps(profile, separators=(",", ":")).encode() if profile else b"",
        sysctls=linux.get("sysctl") or {},
        resources=resources_request(linux.get("resources") or {}),
        privileged=_privileged(linux),
        pid_namespace_of=pid_namespace_of,
        masked_in_image=_of_the_image(linux.get("maskedPaths") or []),
        readonly_in_image=_of_the_image(linux.get("readonlyPaths") or []),
    )


def _of_the_image(paths: Sequence[str]) -> list[str]:
    """Which of /proc and /sys are hidden is the enforcer's business."""
    return [path for path in paths if not path.startswith(("/proc/", "/sys/"))]


def _mapping(item: Document) -> pb.IdMapping:
    # Go leaves out what is 0.
    return pb.IdMapping(inside=item.get("containerID", 0), outside=item.get("hostID", 0), size=item.get("size", 0))


def _resources(resources: Document) -> pb.Resources:
    result = pb.Resources()
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    found = {
        "memory_limit": memory.get("limit"),
        "memory_swap": memory.get("swap"),
        "memory_reservation": memory.get("reservation"),
        "cpu_quota": cpu.get("quota"),
        "cpu_period": cpu.get("period"),
        "cpu_shares": cpu.get("shares"),
        "pids_limit": (resources.get("pids") or {}).get("limit"),
        "blkio_weight": (resources.get("blockIO") or {}).get("weight"),
    }
    for name, value in found.items():
        if value:  # 0 is how Go writes "not given"
            setattr(result, name, int(value))
    return result


def _process(process: Document, stdin: bool) -> pb.Process:
    user = process.get("user") or {}
    size = process.get("consoleSize") or {}
    capabilities = process.get("capabilities") or {}
    result = pb.Process(
        args=process.get("args") or [],
        env=process.get("env") or [],
        cwd=process.get("cwd") or "/",
        user=pb.User(uid=user.get("uid", 0), gid=user.get("gid", 0), additional_gids=user.get("additionalGids") or []),
        capabilities=pb.Capabilities(**{name: capabilities.get(name) or [] for name in _CAPABILITY_SETS}),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        rlimits=[
            pb.Rlimit(type=item["type"], hard=item["hard"], soft=item["soft"]) for item in process.get("rlimits") or []
        ],
        terminal=bool(process.get("terminal")),
        console_width=size.get("width", 0),
        console_height=size.get("height", 0),
        stdin=stdin,
    )
    if user.get("umask") is not None:
        result.user.umask = user["umask"]
    if process.get("oomScoreAdj") is not None:
        result.oom_score_adj = process["oomScoreAdj"]
    return result


def _asked(oci: Document, names: Names) -> list[Document]:
    """The mounts that are asked of the guest."""
    mounts = oci.get("mounts") or []
    return [mount for mount in mounts if not _is_own(mount) and mount["destination"] not in names.left_out]


def _mount(mount: Document, guest_id: str, sandbox: str, names: Names) -> pb.Mount:
    """Mounts of the host's files are mounts of what the guest has of them."""
    source, options = str(mount.get("source") or ""), _mount_options(mount)
    copied = host_mount(mount, names) if not _empty_dir(mount) else None
    if copied is not None:
        source = f"/run/gcs/c/{sandbox or guest_id}/sandboxMounts{copied.place}"
    elif sandbox and _empty_dir(mount):
        source = pod_volumes.guest_source(sandbox, _empty_dir(mount), cloud=names.cloud_empty_dirs)
    kind = _mount_type(mount)
    if names.shared and kind == "bind":
        options = ["rshared" if option == "rprivate" else option for option in options]
    return pb.Mount(destination=mount["destination"], type=kind, source=source, options=options)


def _is_own(mount: Document) -> bool:
    """Whether the enforcer makes this mount by itself; an emptyDir in such a place is somebody's wish."""
    return _mount_type(mount) in _OWN_MOUNTS.get(mount["destination"], ()) and not _empty_dir(mount)


def _empty_dir(mount: Document) -> str:
    """The name of the pod's emptyDir that is mounted; "" for any other mount."""
    return pod_volumes.empty_dir_name(str(mount.get("source") or ""))


def _mount_options(mount: Document) -> list[str]:
    """Nothing is mounted below what the guest has of the host's files, so read-only is all of it."""
    return ["ro" if option == "rro" else option for option in mount.get("options") or []]


def _mount_type(mount: Document) -> str:
    """An OCI bind mount may leave out its type."""
    options = mount.get("options") or []
    return "bind" if "bind" in options or "rbind" in options else str(mount.get("type") or "")


def _privileged(linux: Document) -> bool:
    """OCI has no such word; a privileged container is one from which nothing is hidden."""
    return not linux.get("maskedPaths") and not linux.get("readonlyPaths")
