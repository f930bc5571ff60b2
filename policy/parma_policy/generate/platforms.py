# SPDX-License-Identifier: Apache-2.0
"""What container managers add to every container, as named rule sets that never change.

A set that has been released stays as it is, so that the same source gives the same policy after an upgrade; what
a newer manager does differently becomes a new set with the next number. ``--platform`` chooses, by name or as a file
of the same form as ``data/platforms.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from parma_policy.generate.documents import decoded, read_file
from parma_policy.generate.policy import EnvRule, Mount
from parma_wire.errors import Malformed, NotFound

DEFAULTS: Final[Mapping[str, str]] = {
    "image": "ctr-1",
    "compose": "nerdctl-1",
    "kubernetes": "kubernetes-1",
    "confcom": "aci-1",
}
"""The set for each kind of source."""

HOSTNAME: Final = "%HOSTNAME%"
"""In a pattern: the expression for the container's host name."""

MODE: Final = "%MODE%"
"""In the options of a mount: ``ro`` with a read-only root file system, else ``rw``."""

_MEMBERS: Final = frozenset(
    (
        *("about", "default_path", "no_new_privileges", "seccomp", "seccomp_applied", "image_volumes"),
        *("env", "service_env", "mounts"),
    )
)


@dataclass(frozen=True, slots=True)
class Platform:
    """One rule set."""

    name: str
    about: str
    default_path: Literal["always", "without-env"]
    """When containerd's own PATH is given: where the image has none, or only where it has no environment at all."""
    no_new_privileges: bool
    """What a container gets that does not say."""
    seccomp: str
    """Name of the default profile (``seccomp_profiles``)."""
    seccomp_applied: bool
    """Whether a container that does not say gets it."""
    image_volumes: tuple[str, ...]
    """Options of the mount that is made for each volume of an image; none: no mount is made."""
    env: tuple[EnvRule, ...]
    service_env: tuple[EnvRule, ...]
    """Variables that describe the services of a Kubernetes namespace."""
    mounts: tuple[Mount, ...]

    def env_rules(self, hostname: str, *, services: bool = False) -> tuple[EnvRule, ...]:
        """The rules; ``hostname`` is an expression for the container's host name."""
        rules = (*self.env, *(self.service_env if services else ()))
        return tuple(
            EnvRule(rule.pattern.replace(HOSTNAME, hostname), rule.strategy, required=False, note=rule.note)
            for rule in rules
        )

    def mount_rules(self, *, read_only: bool) -> tuple[Mount, ...]:
        """The mounts that the platform makes in every container."""
        mode = "ro" if read_only else "rw"
        return tuple(
            Mount(
                mount.destination,
                mount.source,
                mount.type,
                tuple(mode if option == MODE else option for option in mount.options),
                mount.note,
            )
            for mount in self.mounts
        )


def names() -> tuple[str, ...]:
    """The built-in sets."""
    return tuple(_built_in())


def load(name: str) -> Platform:
    """A built-in set, or one in a file (a name with a ``/`` or that ends in ``.json``) of several or one.

    Raises NotFound and Malformed.
    """
    if "/" in name or name.endswith(".json"):
        return _from_file(Path(name))
    found = _built_in().get(name)
    if found is None:
        raise NotFound(f"no platform rule set {name!r}", hint=f"there are {', '.join(names())}, or name a file")
    return _platform(name, found)


@cache
def _built_in() -> dict[str, Any]:
    text = resources.files("parma_policy.generate").joinpath("data/platforms.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _from_file(path: Path) -> Platform:
    try:
        document = json.loads(decoded(read_file(path, "rule set"), str(path)))
    except ValueError as error:
        raise Malformed(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or len(document) != 1:
        raise Malformed(f"{path} is not a platform rule set", expected='{"name": {...}} with one set')
    ((name, found),) = document.items()
    if name in names():
        raise Malformed(f"{path} redefines the built-in rule set {name}", hint="give it a name of its own")
    return _platform(name, found)


def _platform(name: str, found: Any) -> Platform:
    if not isinstance(found, dict) or not found.keys() <= _MEMBERS or not found.keys() >= _MEMBERS - {"service_env"}:
        raise Malformed(f"platform rule set {name} has wrong members", expected=", ".join(sorted(_MEMBERS)))
    try:
        return Platform(
            name=name,
            about=str(found["about"]),
            default_path="always" if found["default_path"] == "always" else "without-env",
            no_new_privileges=found["no_new_privileges"] is True,
            seccomp=str(found["seccomp"]),
            seccomp_applied=found["seccomp_applied"] is True,
            image_volumes=tuple(found["image_volumes"].split()),
            env=tuple(_env_rule(name, item) for item in found["env"]),
            service_env=tuple(_env_rule(name, item) for item in found.get("service_env", ())),
            mounts=tuple(_mount(name, item) for item in found["mounts"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"platform rule set {name} makes no sense: {error}") from None


def _env_rule(name: str, item: Mapping[str, str]) -> EnvRule:
    why = item.get("note", "")
    strategy: Literal["string", "re2"] = "re2" if item["strategy"] == "re2" else "string"
    return EnvRule(item["pattern"], strategy, required=False, note=f"{name}: {why}" if why else name)


def _mount(name: str, item: Mapping[str, Any]) -> Mount:
    return Mount(item["destination"], item["source"], "bind", tuple(item["options"]), name)
