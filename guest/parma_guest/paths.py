# SPDX-License-Identifier: Apache-2.0
"""Every path in the guest that the enforcer uses, computed here and nowhere else.

The places that the execution policy can see (layers, container directories) have the names that existing policies
expect; nothing in this module comes from the host except a number or an id that has already been parsed.
"""

from __future__ import annotations

from typing import Final

from parma_guest.values import ContainerId

LAYERS: Final = "/run/mounts/scsi"
"""Verified image layers are mounted below it, as ``m<N>``."""

CONTAINERS: Final = "/run/gcs/c"
"""One directory per container; the container's scratch space is mounted on it."""

MOUNT_PATH_REGEX: Final = "/run/mounts/scsi/m[0-9]+"
"""What the framework requires of a layer's mount point (part of ``mount_device``'s input)."""

SCRATCH_PATH_REGEX: Final = "/run/gcs/c/[0-9a-fA-F]{64}"
"""What the framework requires of a scratch device's mount point (part of ``rw_mount_device``'s input)."""

PRIVATE: Final = "/run/parma"
"""The enforcer's own files: bundles, pid files, console sockets. Never visible in a container."""

RUNTIME_ROOT: Final = "/run/crun"
EMPTY_LAYER: Final = PRIVATE + "/empty"
"""The lower directory of a container whose policy lists no layers at all."""

OWNERS: Final = PRIVATE + "/owners"
"""Layers as a user namespace sees them, while an overlay is being mounted."""

PAUSE_ROOT: Final = PRIVATE + "/pause"
"""The root directory of what keeps a pod's namespaces: one program."""

PINS: Final = "/run/gcs/pins"
"""Sources of bind mounts are held below it while a container is created. A user namespace's root gets that far, too."""

NETWORK: Final = PRIVATE + "/network"
"""The network namespace that all containers are in."""

NOTHING: Final = PRIVATE + "/nothing"
"""An empty directory: the root of the processes that face a container."""

PYTHON: Final = "/usr/bin/python3.13"
LIBRARY: Final = "/usr/lib/parma"
CRUN: Final = "/usr/bin/crun"
MKFS_EXT4: Final = "/usr/sbin/mkfs.ext4"
CGROUP_ROOT: Final = "/sys/fs/cgroup"


def container_directory(container: ContainerId) -> str:
    """The mount point of the container's scratch space."""
    return f"{CONTAINERS}/{container}"


def rootfs(container: ContainerId) -> str:
    """The container's overlay."""
    return f"{container_directory(container)}/rootfs"


def scratch_directory(container: ContainerId) -> str:
    """Upper and work directory of the overlay live below it; what ``scratch_mount`` is asked about."""
    return f"{container_directory(container)}/scratch/{container}"


def sandbox_mounts(container: ContainerId) -> str:
    """What ``sandbox://`` in a policy's mount source stands for."""
    return f"{container_directory(container)}/sandboxMounts"


def shared_memory(sandbox: ContainerId) -> str:
    """A pod's ``/dev/shm``, which all its containers have."""
    return f"{container_directory(sandbox)}/shm"


def empty_dirs(sandbox: ContainerId) -> tuple[str, str]:
    """Where policies expect a pod's emptyDirs, each by its name: those made here, and those for the cloud service."""
    directory = sandbox_mounts(sandbox)
    return f"{directory}/volumes/empty-dir", f"{directory}/tmp/atlas/emptydir"  # noqa: S108


def huge_pages(container: ContainerId) -> str:
    """What ``hugepages://`` in a policy's mount source stands for."""
    return f"{container_directory(container)}/hugepages"


def bundle(container: ContainerId) -> str:
    """Where the container's generated ``config.json`` lives."""
    return f"{PRIVATE}/c/{container}"


def pin(container: ContainerId, number: int) -> str:
    """Where the source of the container's mount ``number`` is held."""
    return f"{PINS}/{container}-{number}"


def cgroup(container: ContainerId) -> str:
    """The container's cgroup as the OCI spec names it, relative to the hierarchy's root."""
    return f"/parma/{container}"


def cgroup_directory(container: ContainerId) -> str:
    """The container's cgroup in the file system."""
    return CGROUP_ROOT + cgroup(container)
