# SPDX-License-Identifier: Apache-2.0
"""What mounts say of files that the host provides: their only content, or that it may change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from parma_policy.generate.policy import Container, Mount
from parma_wire.errors import Malformed, NotFound

_HOSTS: Final = "sandbox:///etc/hosts"
_CHANGING: Final = tuple(f"sandbox:///volumes/{kind}/" for kind in ("configmap", "secret", "projected", "downward-api"))


@dataclass(frozen=True, slots=True)
class ProvidedFiles:
    """What is said of them for all containers."""

    pins: Mapping[str, Path] = field(default_factory=dict)
    """Local copies of what is mounted, by destination."""
    updates: bool = False
    """Kubernetes' own volumes may change."""
    hosts: bool = False
    """So may ``/etc/hosts``, to which nerdctl adds the names of containers that are started later."""

    def applied(self, containers: Sequence[Container]) -> list[Container]:
        """The containers with these mounts. Raises NotFound for a destination that none has, or a missing file."""
        unused = set(self.pins)
        found = []
        for container in containers:
            mounts = tuple(map(self._applied, container.mounts))
            unused.difference_update(mount.destination for mount in mounts)
            found.append(replace(container, mounts=mounts))
        if unused:
            raise NotFound(f"no container mounts anything at {min(unused)}", hint="--pin DESTINATION=FILE")
        return found

    def _applied(self, mount: Mount) -> Mount:
        if mount.destination in self.pins:
            return replace(mount, sha256=_digests(self.pins[mount.destination]))
        changing = (self.updates and mount.source.startswith(_CHANGING)) or (self.hosts and mount.source == _HOSTS)
        return replace(mount, updates=True) if changing else mount


def parse_pin(text: str) -> tuple[str, Path]:
    """``DESTINATION=FILE``. Raises Malformed."""
    destination, separator, path = text.partition("=")
    if not destination.startswith("/") or not separator or not path:
        raise Malformed(f"bad pin {text[:200]!r}", expected="DESTINATION=FILE, of a file or directory here")
    return destination, Path(path)


def _digests(path: Path) -> tuple[tuple[str, str], ...]:
    """Path below ``path`` and SHA-256 of each file, by path; the path is empty where ``path`` is the file."""
    if path.is_file():
        return (("", _digest(path)),)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else []
    if not files:
        raise NotFound(f"there is no file at {path}")
    return tuple((file.relative_to(path).as_posix(), _digest(file)) for file in files)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
