# SPDX-License-Identifier: Apache-2.0
"""Volumes of a pod, and the mounts that kubelet asks for.

In the guest, a volume is a directory or file below the pod's own directory, which a policy calls ``sandbox://``. What
is in it comes from the host unless it is an emptyDir. The names there follow kubelet's:
``sandbox:///volumes/KIND/NAME`` and, for a single file of a volume, ``sandbox:///volume-subpaths/VOLUME/CONTAINER/N``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_policy.generate.kubernetes import quantities
from parma_policy.generate.kubernetes.workloads import LETTER
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import quoted
from parma_policy.generate.policy import Mount
from parma_policy.generate.possible import is_canonical

_HOST_PATH: Final = "host-path"
_KINDS: Final = {
    "emptyDir": "empty-dir",
    "configMap": "configmap",
    "secret": "secret",
    "projected": "projected",
    "downwardAPI": "downward-api",
    "hostPath": _HOST_PATH,
}
_READ_ONLY: Final = ("configmap", "secret", "projected", "downward-api")
"""Mounted read-only, whatever the mount says."""

_TOKEN_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_TERMINATION_LOG: Final = "/dev/termination-log"
_CONTENT_MEMBERS: Final = ("items", "defaultMode", "optional", "name", "secretName", "sources")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume; ``kind`` is empty for one that cannot be had."""

    kind: str
    path: str = ""
    """Of a hostPath."""


def read_volumes(spec: Fields, claims: tuple[str, ...], host_paths: frozenset[str]) -> dict[str, Volume]:
    """The volumes of a pod by name; ``host_paths`` are directories of the host that may be asked for."""
    volumes = dict.fromkeys(claims, Volume("")) if claims else {}
    if claims:
        spec.node.problem(f"volumeClaimTemplates: {_UNSUPPORTED}")
    for node in spec.items("volumes"):
        with node.fields() as fields:
            name = fields.needed_text("name")
            known = [kind for kind in _KINDS if fields.get(kind) is not None]
            volumes[name] = _volume(known[0], fields, host_paths) if known else _other(node, fields)
    return volumes


_UNSUPPORTED: Final = "volumes with data from outside the VM are not supported"


def _other(node: Node, fields: Fields) -> Volume:
    kinds = [name for name, _ in fields if name != "name"]
    fields.ignore(*kinds)
    if kinds:
        for kind in kinds:
            fields.node.members()[kind].problem(_UNSUPPORTED)
    else:
        node.problem("the volume has no source")
    return Volume("")


def _volume(kind: str, fields: Fields, host_paths: frozenset[str]) -> Volume:
    inner = fields.child(kind)
    if inner is None:
        return Volume("")
    with inner:
        match kind:
            case "emptyDir":
                inner.refuse("medium", "only memory and the VM's own scratch space are there", harmless=("Memory",))
                _size_limit(inner.get("sizeLimit"))
            case "hostPath":
                inner.ignore("type")
                path = inner.needed_text("path")
                if path not in host_paths:
                    hint = f"allow it with --allow-host-path {path}"
                    inner.node.problem("a directory of the host, which can change it at any time", hint=hint)
                    return Volume("")
                return Volume(_HOST_PATH, path)
            case _:
                inner.ignore(*_CONTENT_MEMBERS)
    return Volume(_KINDS[kind])


def limits_annotation(spec: Node, present: str) -> str:
    """The limits of a pod's emptyDirs as the runtime reads them; empty where the manifest has none.

    kubelet enforces that of one in memory by itself. ``present`` is what the manifest has of this annotation: entries
    for other volumes stay.
    """
    limits = {}
    for node in spec.members().get("volumes", _no_volumes(spec)).items():
        name, empty = node.members().get("name"), node.members().get("emptyDir")
        inner = empty.members() if empty is not None else {}
        in_memory = "medium" in inner and inner["medium"].text() == "Memory"
        if name is not None and not in_memory and (size := _size_limit(inner.get("sizeLimit"))):
            limits[name.text()] = _written(size)
    if not limits:
        return ""
    kept = [part.strip() for part in present.split(",") if part.partition("=")[0].strip() not in {*limits, ""}]
    return ",".join([*(f"{name}={size}" for name, size in limits.items()), *kept])


def _no_volumes(spec: Node) -> Node:
    return Node([], f"{spec.path}.volumes", spec.line, spec.problems)


_MOST: Final = 1 << 40


def _size_limit(node: Node | None) -> int:
    """Bytes, rounded up; 0 for none, and after a problem."""
    if node is None or node.is_null:
        return 0
    amount = quantities.parse(node.text(number_as_text=True))
    if amount is None or not 0 <= amount <= _MOST:
        node.problem("a sizeLimit is a quantity of at most 1Ti", hint="for example 512Mi")
        return 0
    return -(-amount.numerator // amount.denominator)


def _written(size: int) -> str:
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


@dataclass(frozen=True, slots=True)
class MountContext:
    """What the mounts of one container depend on."""

    container: str
    volumes: Mapping[str, Volume]
    token: bool
    """Whether the service account's token is mounted where nothing else is."""
    termination_log: str = _TERMINATION_LOG


def read_mounts(container: Fields, context: MountContext) -> tuple[Mount, ...]:
    """The mounts of a container, those that kubelet adds included."""
    mounts = []
    for number, node in enumerate(container.items("volumeMounts")):
        mount = _mount(node, number, context)
        if mount is not None:
            mounts.append(mount)
    taken = {mount.destination for mount in mounts}
    if context.token and _TOKEN_DIRECTORY not in taken:
        source = f"sandbox:///volumes/projected/kube-api-access-{LETTER}{{5}}"
        options = ("rbind", "rprivate", "ro")
        mounts.append(Mount(_TOKEN_DIRECTORY, source, "bind", options, "the service account's token"))
    if context.termination_log and context.termination_log not in taken:
        source = f"sandbox:///termination-log/{quoted(context.container)}"
        options = ("rbind", "rprivate", "rw")
        mounts.append(Mount(context.termination_log, source, "bind", options, "the termination message"))
    return tuple(mounts)


def _mount(node: Node, number: int, context: MountContext) -> Mount | None:
    with node.fields() as fields:
        name, path = fields.needed_text("name"), fields.needed_text("mountPath")
        read_only = fields.flag("readOnly")
        sub_path = fields.text("subPath") or fields.text("subPathExpr")
        propagation = fields.text("mountPropagation", "None")
        fields.refuse("recursiveReadOnly", "not supported", harmless=("Disabled", "IfPossible"))
    volume = context.volumes.get(name)
    if volume is None:
        node.problem(f"the pod has no volume {name!r}")
        return None
    if not volume.kind:
        return None  # said where the volume is
    if not is_canonical(path):
        node.problem(f"mountPath {path} is not an absolute path without '.', '..', '//' and a '/' at its end")
    if propagation == "Bidirectional":
        node.problem("mounts cannot propagate out of the VM")
    if sub_path and volume.kind not in _READ_ONLY:
        node.problem("a part of a volume that containers write to is not supported", hint="mount all of it")
    options = ("rbind", "rslave" if propagation == "HostToContainer" else "rprivate")
    mode = "ro" if read_only or volume.kind in _READ_ONLY else "rw"
    source = _source(name, volume, f"{context.container}/{number}" if sub_path else "")
    note = "an empty directory, in the VM" if volume.kind == "empty-dir" else f"{volume.kind} {name}: from the host"
    return Mount(path, source, "bind", (*options, mode), note)


def _source(name: str, volume: Volume, part: str) -> str:
    if part:
        return f"sandbox:///volume-subpaths/{quoted(f'{name}/{part}')}"
    if volume.kind == _HOST_PATH:
        return f"sandbox:///host{quoted(volume.path)}"
    return f"sandbox:///volumes/{volume.kind}/{quoted(name)}"
