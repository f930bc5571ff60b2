# SPDX-License-Identifier: Apache-2.0
"""Whether the guest can honour a container: a policy that it cannot satisfy helps nobody."""

from __future__ import annotations

from parma_policy import honoured
from parma_policy.generate.policy import Container, Mount
from parma_wire.errors import Malformed


def check(container: Container) -> None:
    """Raises Malformed for what the guest refuses whatever the policy says."""
    path = container.working_dir
    if not path.startswith("/") or ".." in path.split("/"):
        raise Malformed(f"the working directory {path[:200]!r} cannot be had", expected="an absolute path without '..'")
    for mount in container.mounts:
        _check_mount(mount)


def is_canonical(path: str) -> bool:
    """Whether a path is absolute and in its only spelling."""
    return path.startswith("/") and not any(part in ("", ".", "..") for part in path.split("/")[1:])


def _check_mount(mount: Mount) -> None:
    place = f"the mount at {mount.destination[:200]!r} cannot be had"
    if not is_canonical(mount.destination):
        raise Malformed(place, expected="an absolute path without '.', '..', '//' and a '/' at its end")
    if not honoured.is_place(mount.destination):
        raise Malformed(place, expected="neither / nor anything below /proc, /sys, /dev")
    if mount.type not in honoured.MOUNT_TYPES:
        raise Malformed(f"{place}: it has type {mount.type[:40]!r}", expected=" or ".join(sorted(honoured.MOUNT_TYPES)))
    if mount.type == "tmpfs" and mount.source not in honoured.TMPFS_SOURCES:
        raise Malformed(f"{place}: a tmpfs has no source", expected="tmpfs as its source")
    option = honoured.refused_option(mount.type, mount.options)
    if option is not None:
        raise Malformed(f"{place}: option {option[:80]!r} is not allowed")
