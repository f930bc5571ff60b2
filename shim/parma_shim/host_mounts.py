# SPDX-License-Identifier: Apache-2.0
"""Bind mounts of the host's files, recognised by where container managers keep them. Pure.

In the guest each has a place below the sandbox's own directory, which policies call ``sandbox://``. The names are those
that ``parma policy generate`` writes; for policies written for the cloud service, theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from parma_shim.digest import hex_digest

_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.~-]{0,252}"
_POD: Final = r"/.*/pods/[^/]+"
_PROVIDED: Final = (
    (
        re.compile(rf"{_POD}/volumes/kubernetes\.io~(configmap|secret|projected|downward-api)/({_NAME})"),
        r"/volumes/\1/\2",
    ),
    (re.compile(rf"{_POD}/volume-subpaths/({_NAME})/({_NAME})/({_NAME})"), r"/volume-subpaths/\1/\2/\3"),
    (re.compile(rf"{_POD}/containers/({_NAME})/[0-9a-f]{{8}}"), r"/termination-log/\1"),
)
_EMPTY: Final = (
    (re.compile(rf"/.*/volumes/{_NAME}/({_NAME})/_data"), r"/volumes/nerdctl/\1"),
    (re.compile(r"/.*/containers/[^/]+/volumes/([0-9a-f]{64})"), r"/volumes/image/\1"),
    # Already by the guest's name, for who runs a container by hand: nothing on the host is called so.
    (
        re.compile(rf"/run/gcs/c/[0-9a-f]{{64}}/sandboxMounts(/volumes/empty-dir|/tmp/atlas/emptydir)/({_NAME})"),
        r"\1/\2",
    ),
)
_TERMINATION_LOG: Final = "/termination-log/"
_OF_THE_PLATFORM: Final = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})
_EVERYWHERE: Final = _OF_THE_PLATFORM | {"/dev/termination-log"}
_CLOUD_RESOLV_CONF: Final = "/tmp/atlas/resolvconf/"  # noqa: S108  # a place in the guest
_CLOUD_SECRETS: Final = "/tmp/atlas/secretsVolume/"  # noqa: S108
CLOUD_EMPTY_DIRS: Final = "/tmp/atlas/emptydir/"  # noqa: S108


class HostMount(NamedTuple):
    """What a mount has of the host's."""

    source: str
    """On the host."""
    place: str
    """Below the sandbox's directory in the guest."""
    is_copied: bool
    """False for what is an empty directory in the guest, whatever the host has there."""
    is_empty: bool
    """Copied as an empty file."""


class Names(NamedTuple):
    """How the policy calls things that have more than one name."""

    cloud_resolv_conf: bool = False
    cloud_secrets: bool = False
    cloud_empty_dirs: bool = False
    shared: bool = False
    """Mounts are to be shared ones where container managers here ask for private ones."""
    left_out: frozenset[str] = frozenset()
    """Destinations of the platform's files that no container may have."""

    @classmethod
    def of(cls, policy: bytes) -> Names:
        """A guess by the policy's text; the guest decides.

        Policies written for the cloud service do not know the files that a container manager mounts everywhere: there,
        the guest's own platform brings them. So nobody asks for those that such a policy does not name.
        """
        if b"sandbox:///tmp/atlas/" not in policy:
            return cls()
        return cls(
            f"sandbox://{_CLOUD_RESOLV_CONF}".encode() in policy,
            f"sandbox://{_CLOUD_SECRETS}".encode() in policy,
            f"sandbox://{CLOUD_EMPTY_DIRS}".encode() in policy and b"sandbox:///volumes/empty-dir/" not in policy,
            b'"rshared"' in policy and b'"rprivate"' not in policy,
            frozenset(place for place in _EVERYWHERE if f'"{place}"'.encode() not in policy),
        )


def host_mount(mount: Mapping[str, Any], names: Names) -> HostMount | None:
    """The mount of a ``config.json`` as one of the host's; None for any other."""
    options = mount.get("options") or []
    source, destination = str(mount.get("source") or ""), str(mount.get("destination") or "")
    if not ("bind" in options or "rbind" in options or mount.get("type") == "bind") or not source.startswith("/"):
        return None
    for pattern, place in _EMPTY:
        found = pattern.fullmatch(source)
        if found:
            return HostMount(source, found.expand(place), is_copied=False, is_empty=False)
    place = _place(source, destination, names)
    return HostMount(source, place, is_copied=True, is_empty=place.startswith(_TERMINATION_LOG))


def host_mounts(mounts: Iterable[Mapping[str, Any]], names: Names) -> list[HostMount]:
    """Those that are copied, each place once."""
    found = {item.place: item for mount in mounts if (item := host_mount(mount, names)) is not None and item.is_copied}
    return list(found.values())


def _place(source: str, destination: str, names: Names) -> str:
    if destination == "/etc/resolv.conf" and names.cloud_resolv_conf:
        return _CLOUD_RESOLV_CONF + hex_digest(source.encode(errors="surrogateescape"))[:16]
    if destination in _OF_THE_PLATFORM:
        return destination
    for pattern, place in _PROVIDED:
        found = pattern.fullmatch(source)
        if found:
            expanded = found.expand(place)
            if names.cloud_secrets and expanded.startswith("/volumes/secret/"):
                return _CLOUD_SECRETS + expanded.rpartition("/")[2]
            return expanded
    return f"/host{source.rstrip('/')}"
