# SPDX-License-Identifier: Apache-2.0
"""Volumes, tmpfs, configs and secrets of a service, as the mounts that nerdctl asks for.

In the guest, ``sandbox:///volumes/nerdctl/NAME`` is a volume, ``sandbox:///configs/NAME`` and ``sandbox:///secrets/NAME``
are files that the host provides.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import quoted
from parma_policy.generate.policy import Mount
from parma_policy.generate.possible import is_canonical

_TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev")
_OPPOSITES: Final = {
    **{f"no{name}": name for name in ("exec", "suid", "dev", "atime", "diratime", "relatime")},
    "ro": "rw",
    "async": "sync",
    "nostrictatime": "strictatime",
}
_ANONYMOUS: Final = "sandbox:///volumes/nerdctl/[0-9a-f]{64}"
_PROPAGATIONS: Final = ("private", "rprivate", "slave", "rslave")


@dataclass(frozen=True, slots=True)
class Project:
    """What volumes of services refer to."""

    name: str
    directory: str
    """The absolute directory of the Compose file."""
    volumes: Mapping[str, str]
    """Full names by the names in the file."""
    configs: frozenset[str]
    secrets: frozenset[str]
    host_paths: frozenset[str] = frozenset()


def read_mounts(service: Fields, project: Project) -> tuple[Mount, ...]:
    """All mounts of a service that its own fields make."""
    mounts = [_volume(node, project) for node in service.items("volumes")]
    for kind, known in (("configs", project.configs), ("secrets", project.secrets)):
        mounts += [_file(node, kind, known) for node in service.items(kind)]
    tmpfs = service.get("tmpfs")
    if tmpfs is not None:
        mounts += [_tmpfs(node) for node in ([tmpfs] if not isinstance(tmpfs.value, list) else tmpfs.items())]
    found = [mount for mount in mounts if mount is not None]
    for mount in found:
        if not is_canonical(mount.destination):
            service.node.problem(f"{mount.destination!r} is not an absolute path in its only spelling")
    return tuple(found)


def _volume(node: Node, project: Project) -> Mount | None:
    if isinstance(node.value, dict):
        return _long(node, project)
    parts = node.text().split(":")
    match parts:
        case [target]:
            return Mount(_clean(target), _ANONYMOUS, "bind", ("rbind",), "an anonymous volume")
        case [source, target]:
            return _named_or_bind(node, project, source, target, ())
        case [source, target, mode]:
            return _named_or_bind(node, project, source, target, tuple(mode.split(",")))
    node.problem("expected TARGET, SOURCE:TARGET or SOURCE:TARGET:MODE")
    return None


def _long(node: Node, project: Project) -> Mount | None:
    with node.fields() as fields:
        kind, source = fields.needed_text("type"), fields.text("source")
        target, read_only = fields.needed_text("target"), fields.flag("read_only")
        fields.ignore("consistency")
        bind, tmpfs = fields.child("bind"), fields.child("tmpfs")
        fields.refuse("volume", "not supported", hint="nerdctl has no options for volumes")
        fields.refuse("image", "not supported")
    propagation = ""
    if bind is not None:
        with bind:
            bind.ignore("create_host_path", "selinux")
            propagation = bind.text("propagation")
            bind.refuse("recursive", "not supported", harmless=("enabled",))
    match kind:
        case "tmpfs":
            return _long_tmpfs(tmpfs, target, read_only=read_only)
        case "volume" if not source:
            if read_only:
                node.problem("an anonymous volume that is read-only")
            return Mount(_clean(target), _ANONYMOUS, "bind", ("rbind",), "an anonymous volume")
        case "volume" | "bind":
            modes = (*(["ro"] if read_only else []), *([propagation] if propagation else []))
            return _named_or_bind(node, project, source, target, modes, is_path=kind == "bind")
    node.problem(f"volumes of type {kind} are not supported")
    return None


def _named_or_bind(
    node: Node, project: Project, source: str, target: str, modes: tuple[str, ...], *, is_path: bool | None = None
) -> Mount | None:
    read_only = "ro" in modes
    propagation = next((mode for mode in modes if mode in _PROPAGATIONS), "")
    unknown = [mode for mode in modes if mode not in ("ro", "rw", "z", "Z", "", *_PROPAGATIONS)]
    if unknown:
        node.problem(f"mode {unknown[0]} is not supported")
    if is_path is None:
        is_path = source.startswith(("/", ".", "~"))
    options: tuple[str, ...] = ("ro",) if read_only else ()
    if not is_path:
        if source not in project.volumes:
            node.problem(f"the file has no volume {source!r}")
            return None
        full = project.volumes[source]
        where = f"sandbox:///volumes/nerdctl/{quoted(full)}"
        return Mount(_clean(target), where, "bind", (*options, "rbind"), f"volume {full}")
    path = posixpath.normpath(posixpath.join(project.directory, source))
    if path not in project.host_paths:
        hint = f"allow it with --allow-host-path {path}"
        node.problem("a directory or file of the host, which can change it at any time", hint=hint)
        return None
    if modes:
        options = (*options, propagation or "rprivate")
    return Mount(_clean(target), f"sandbox:///host{quoted(path)}", "bind", (*options, "rbind"), "from the host")


def _long_tmpfs(fields: Fields | None, target: str, *, read_only: bool) -> Mount:
    options = ["ro"] if read_only else []
    if fields is not None:
        with fields:
            size = fields.get("size")
            mode = fields.get("mode")
        if size is not None:
            options.append(f"size={size.integer(1, 2**50)}")
        if mode is not None:
            options.append(f"mode={mode.integer(0, 0o7777):o}")
    return Mount(_clean(target), "tmpfs", "tmpfs", _merged(options), "in the VM's memory")


def _tmpfs(node: Node) -> Mount:
    target, _, options = node.text().partition(":")
    given = [option for option in options.split(",") if option]
    return Mount(_clean(target), "tmpfs", "tmpfs", _merged(given), "in the VM's memory")


def _merged(given: list[str]) -> tuple[str, ...]:
    """With nerdctl's defaults; of options that exclude each other the last counts."""
    kept: dict[str, str] = {}
    for option in (*_TMPFS_DEFAULTS, *given):
        kept[_OPPOSITES.get(option, option.partition("=")[0])] = option
    return tuple(kept.values())


def _file(node: Node, kind: str, known: frozenset[str]) -> Mount | None:
    target = ""
    if isinstance(node.value, dict):
        with node.fields() as fields:
            name, target = fields.needed_text("source"), fields.text("target")
            for member in ("uid", "gid", "mode"):
                fields.refuse(member, "nerdctl does not support it")
    else:
        name = node.text()
    if name not in known:
        node.problem(f"the file has no {kind[:-1]} {name!r}")
        return None
    folder = "/run/secrets" if kind == "secrets" else "/"
    place = posixpath.normpath(posixpath.join(folder, target or name))
    if kind == "configs" and target and not target.startswith("/"):
        node.problem("a config's target is an absolute path")
    source = f"sandbox:///{kind}/{quoted(name)}"
    return Mount(place, source, "bind", ("ro", "rprivate", "rbind"), f"{kind[:-1]} {name}: from the host")


def _clean(path: str) -> str:
    """As nerdctl cleans destinations."""
    return posixpath.normpath(path) if path.startswith("/") else path
