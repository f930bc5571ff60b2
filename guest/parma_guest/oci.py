# SPDX-License-Identifier: Apache-2.0
"""The OCI runtime spec for crun, built from nothing but typed values and what the policy let through.

There is no path by which a spec, an annotation, a hook or a device of the host could get here. What a container
gets besides (its /proc, /dev, /sys, masked paths) is fixed below and equal for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from parma_guest import paths
from parma_guest.attest.service import DeviceNode
from parma_guest.owners import IdMapping, UserNamespace
from parma_guest.requests import CreateContainer
from parma_guest.values import Capabilities, MountSpec, ProcessSpec, Resources

OCI_VERSION: Final = "1.0.2"
DEFAULT_HOSTNAME: Final = "localhost"

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/class/cuse",  # other containers' /dev/sev-guest
    "/sys/devices/virtual/cuse",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES: Final = ("ipc", "uts", "mount", "cgroup", "network", "pid")

_DEVICE_RULES: Final = (
    # On top of this crun allows making device nodes, and using the harmless ones (null, zero, full, random, urandom,
    # tty, console, ptmx, pts). No other can be opened, wherever its node comes from.
    {"allow": False, "access": "rwm"},
)


def _fixed_mounts(*, privileged: bool, shared_memory: str) -> list[dict[str, object]]:
    system = "rw" if privileged else "ro"
    shm = ("nosuid", "noexec", "nodev")
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/shm", "bind", shared_memory, "bind", *shm)  # noqa: S108
        if shared_memory
        else _mount("/dev/shm", "tmpfs", "shm", *shm, "mode=1777", "size=65536k"),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", system),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", system),
        _mount("/run", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    ]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, object]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def container(
    request: CreateContainer,
    env: tuple[str, ...],
    capabilities: Capabilities,
    joined: Mapping[str, str],
    shared_memory: str = "",
    device: DeviceNode | None = None,
    user_namespace: UserNamespace | None = None,
) -> dict[str, Any]:
    """``config.json``; ``env`` and ``capabilities`` are those that the policy keeps.

    ``joined`` has the paths of namespaces that exist already, by type; all others are new. ``shared_memory`` is the
    pod's ``/dev/shm``. ``device`` is the container's ``/dev/sev-guest``, if the policy gives it one.
    ``user_namespace`` is the one that its root file system was made for.
    """
    namespaces = [{"type": name, "path": joined[name]} if name in joined else {"type": name} for name in NAMESPACES]
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "cgroupsPath": paths.cgroup(request.container),
        "resources": {"devices": [*_DEVICE_RULES, *_device_rules(device)], **resources(request.resources)},
        "maskedPaths": [*(() if request.privileged else MASKED_PATHS), *request.masked_in_image],
        "readonlyPaths": [*(() if request.privileged else READONLY_PATHS), *request.readonly_in_image],
    }
    if device is not None:
        # For every user of the container: it is the container that the policy lets have it.
        node = {"path": device.path, "type": "c", "major": device.major, "minor": device.minor}
        linux["devices"] = [{**node, "fileMode": 0o666, "uid": 0, "gid": 0}]
    if user_namespace is not None:
        namespaces.append({"type": "user"})
        linux["uidMappings"] = _mappings(user_namespace.uids)
        linux["gidMappings"] = _mappings(user_namespace.gids)
    if request.sysctls:
        linux["sysctl"] = dict(request.sysctls)
    if request.seccomp is not None:
        linux["seccomp"] = request.seccomp.as_document()
    mounts = _fixed_mounts(privileged=request.privileged, shared_memory=shared_memory)
    document = {
        "ociVersion": OCI_VERSION,
        "root": {"path": paths.rootfs(request.container), "readonly": request.readonly_rootfs},
        "process": process(request.process, env, capabilities),
        "mounts": mounts + [_requested(mount) for mount in request.mounts],
        "linux": linux,
    }
    if "uts" not in joined:  # its pod has a host name
        document["hostname"] = str(request.hostname) or DEFAULT_HOSTNAME
    return document


def _mappings(mappings: Sequence[IdMapping]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in mappings]


def _device_rules(device: DeviceNode | None) -> list[dict[str, object]]:
    if device is None:
        return []
    return [{"allow": True, "type": "c", "major": device.major, "minor": device.minor, "access": "rw"}]


def process(spec: ProcessSpec, env: tuple[str, ...], capabilities: Capabilities) -> dict[str, Any]:
    """The ``process`` object, for a container's init and for an exec alike."""
    document: dict[str, Any] = {
        "terminal": spec.terminal,
        "args": list(spec.args),
        "env": list(env),
        "cwd": str(spec.cwd),
        "user": {
            "uid": spec.user.uid,
            "gid": spec.user.gid,
            "umask": spec.user.umask,
            "additionalGids": list(spec.user.additional_gids),
        },
        "capabilities": capabilities.as_document(),
        "noNewPrivileges": spec.no_new_privileges,
        "rlimits": [{"type": item.type, "hard": item.hard, "soft": item.soft} for item in spec.rlimits],
    }
    if spec.terminal and all(spec.console_size):
        document["consoleSize"] = {"width": spec.console_size[0], "height": spec.console_size[1]}
    if spec.oom_score_adj is not None:
        document["oomScoreAdj"] = spec.oom_score_adj
    return document


def resources(limits: Resources) -> dict[str, Any]:
    """The ``linux.resources`` object without its devices; only what was given."""
    memory = _given(limit=limits.memory_limit, swap=limits.memory_swap, reservation=limits.memory_reservation)
    cpu = _given(
        quota=limits.cpu_quota, period=limits.cpu_period, shares=limits.cpu_shares, cpus=limits.cpuset_cpus or None
    )
    return _given(
        memory=memory or None,
        cpu=cpu or None,
        pids=_given(limit=limits.pids_limit) or None,
        blockIO=_given(weight=limits.blkio_weight) or None,
    )


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _requested(mount: MountSpec) -> dict[str, object]:
    return _mount(mount.destination, mount.type, mount.source, *mount.options)
