# SPDX-License-Identifier: Apache-2.0
"""A pod's emptyDirs: recognised by where kubelet keeps them, made in the guest, never shared with the host. Pure.

kubelet makes a directory ``.../pods/UID/volumes/kubernetes.io~empty-dir/NAME`` for each and has containers bind it.
What it keeps from the runtime is the volume's ``sizeLimit``, unless the medium is memory: then the directory is a tmpfs
of that size. For the others the annotation ``io.parma.volume-limits`` says it, else the configuration's ``volume_mib``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from parma_wire.errors import Malformed

LIMITS_ANNOTATION: Final = "io.parma.volume-limits"
"""``NAME=SIZE,...``; sizes are bytes, or have one of the endings of Kubernetes' quantities."""

MIN_BYTES: Final = 16 << 20
"""The least that an encrypted file system takes."""

_EMPTY_DIR: Final = re.compile(r"/.*/pods/[^/]+/volumes/kubernetes\.io~empty-dir/([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)")
_SIZE: Final = re.compile(r"([1-9][0-9]{0,14})([kMGT]|[KMGT]i)?")
_UNITS: Final = {"": 1} | {
    unit + suffix: base ** (power + 1)
    for suffix, base in (("", 1000), ("i", 1024))
    for power, unit in enumerate(("k" if base == 1000 else "K", "M", "G", "T"))
}
_MAX_BYTES: Final = 1 << 40


class EmptyDir(NamedTuple):
    """One that a container mounts."""

    name: str
    source: str
    """kubelet's directory on the host, of which nothing is used but that it may be a tmpfs."""


def empty_dirs(mounts: Iterable[Mapping[str, Any]]) -> list[EmptyDir]:
    """The emptyDirs among a container's mounts, each once."""
    found = {}
    for mount in mounts:
        name = empty_dir_name(str(mount.get("source") or ""))
        if name:
            found[name] = EmptyDir(name, str(mount["source"]))
    return list(found.values())


def empty_dir_name(source: str) -> str:
    """The emptyDir that a path on the host belongs to; "" for any other path."""
    match = _EMPTY_DIR.fullmatch(source)
    return match[1] if match else ""


def guest_source(sandbox: str, name: str, *, cloud: bool = False) -> str:
    """Where the guest has it; policies call it ``sandbox:///volumes/empty-dir/NAME``.

    ``cloud``: those written for the cloud service call it ``sandbox:///tmp/atlas/emptydir/NAME``.
    """
    place = "tmp/atlas/emptydir" if cloud else "volumes/empty-dir"
    return f"/run/gcs/c/{sandbox}/sandboxMounts/{place}/{name}"


def limits(annotations: Mapping[str, str]) -> dict[str, int]:
    """Bytes by name. Raises Malformed."""
    found: dict[str, int] = {}
    text = annotations.get(LIMITS_ANNOTATION) or ""
    for part in text.split(",") if text else ():
        name, _, size = part.partition("=")
        match = _SIZE.fullmatch(size.strip())
        if not match or not name.strip() or int(match[1]) * _UNITS[match[2] or ""] > _MAX_BYTES:
            raise Malformed(
                f"{LIMITS_ANNOTATION} is malformed at {part[:80]!r}", expected="for example cache=512Mi,tmp=1Gi"
            )
        found[name.strip()] = int(match[1]) * _UNITS[match[2] or ""]
    return found


def disk_bytes(limit: int) -> int:
    """The disk for a volume that is to hold ``limit`` bytes: inode tables, and authentication tags, take room as well.

    A little more than needed rather than less: nobody may write less than was promised.
    """
    wanted = limit + limit // 12 + MIN_BYTES
    return -(-wanted // (1 << 20)) << 20


def tmpfs_bytes(source: str, mount_table: str) -> int:
    """The size of the tmpfs mounted at this place, by the text of ``/proc/self/mounts``; 0 where there is none.

    One without a limit is of the size of half the host's memory: that, too, is written there only when it was said.
    """
    for line in reversed(mount_table.splitlines()):
        fields = line.split()
        if len(fields) >= 4 and fields[1] == source:
            if fields[2] != "tmpfs":
                return 0
            size = re.search(r"(?:^|,)size=([0-9]+)([km]?)(?:,|$)", fields[3])
            return int(size[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[size[2]] if size else _MAX_BYTES
    return 0
