# SPDX-License-Identifier: Apache-2.0
"""What a generated policy says, before it becomes text.

Every list keeps the order in which it was made, and every rule may carry a note: where it came from, which becomes a
comment above it. The names of the members are the policy's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

IdStrategy = Literal["any", "id", "name", "re2"]


@dataclass(frozen=True, slots=True)
class Noted:
    """A value of the text with a comment above it."""

    value: object
    note: str = ""


@dataclass(frozen=True, slots=True)
class EnvRule:
    """Accepts the variables that equal ``pattern``, or that match it (``re2``)."""

    pattern: str
    strategy: Literal["string", "re2"] = "string"
    required: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """The variable's name; of an expression, whatever stands before the first ``=``."""
        return self.pattern.partition("=")[0]

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        return {"pattern": self.pattern, "strategy": self.strategy, "required": self.required}


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount to allow besides those that the guest makes by itself."""

    destination: str
    source: str
    type: str
    options: tuple[str, ...]
    note: str = ""
    sha256: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What the host must provide there: path below the source, empty where that is a file, and SHA-256."""
    updates: bool = field(default=False, repr=False)
    """Whether the host may change what it has provided."""

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        pinned = dict(self.sha256)
        return {
            "destination": self.destination,
            "source": self.source,
            "type": self.type,
            "options": list(self.options),
            **({"sha256": pinned.get("", pinned)} if pinned else {}),
            **({"updates": True} if self.updates else {}),
        }


@dataclass(frozen=True, slots=True)
class Exec:
    """A command that may be run in the started container."""

    command: tuple[str, ...]
    note: str = ""
    signals: tuple[int, ...] = ()
    """More that it may get than the container's own processes."""


@dataclass(frozen=True, slots=True)
class IdName:
    """Accepts a user or a group."""

    pattern: str
    strategy: IdStrategy = "id"

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        return {"pattern": self.pattern, "strategy": self.strategy}


@dataclass(frozen=True, slots=True)
class User:
    """Who the processes run as: every group that is asked for must be one of ``groups``."""

    user: IdName
    groups: tuple[IdName, ...]
    umask: str = "0022"

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        return {
            "user_idname": self.user.as_object(),
            "group_idnames": [group.as_object() for group in self.groups],
            "umask": self.umask,
        }


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets, ascending. Container managers give the same to the first three that they give any."""

    bounding: tuple[str, ...]
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: frozenset[str]) -> Capabilities:
        """``names`` as bounding, effective and permitted set."""
        return cls(tuple(sorted(names)))

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        same = list(self.bounding)
        return {
            "bounding": same,
            "effective": same,
            "inheritable": list(self.inheritable),
            "permitted": same,
            "ambient": list(self.ambient),
        }


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that one container may be."""

    command: tuple[str, ...]
    env: tuple[EnvRule, ...]
    layers: tuple[str, ...]
    mounts: tuple[Mount, ...]
    execs: tuple[Exec, ...]
    signals: tuple[int, ...]
    user: User
    capabilities: Capabilities
    working_dir: str
    seccomp_profile_sha256: str = ""
    allow_elevated: bool = False
    allow_stdio_access: bool = True
    no_new_privileges: bool = True
    attestation: tuple[str, ...] = ()
    """Names of ``parma_policy.attestation``: what of attestation the container may reach."""
    name: str = ""
    origin: tuple[str, ...] = ()
    """Lines for the comment above it: which source, which image."""
    seccomp_note: str = ""

    def as_object(self) -> dict[str, object]:
        """The policy's object, its notes included (see ``Noted``)."""
        signals = list(self.signals)
        named = {"name": self.name} if self.name else {}
        return {
            **named,
            "command": list(self.command),
            "env_rules": [Noted(rule.as_object(), rule.note) for rule in self.env],
            "layers": list(self.layers),
            "mounts": [Noted(mount.as_object(), mount.note) for mount in self.mounts],
            "exec_processes": [
                Noted({"command": list(run.command), "signals": sorted({*signals, *run.signals})}, run.note)
                for run in self.execs
            ],
            "signals": signals,
            "user": self.user.as_object(),
            "capabilities": self.capabilities.as_object(),
            "seccomp_profile_sha256": Noted(self.seccomp_profile_sha256, self.seccomp_note),
            "allow_elevated": self.allow_elevated,
            "working_dir": self.working_dir,
            "allow_stdio_access": self.allow_stdio_access,
            "no_new_privileges": self.no_new_privileges,
            "attestation": list(self.attestation),
        }


@dataclass(frozen=True, slots=True)
class Fragment:
    """A signed fragment that may be loaded, and what counts of it."""

    issuer: str
    feed: str
    minimum_svn: str
    includes: tuple[str, ...]

    def as_object(self) -> dict[str, object]:
        """The policy's object."""
        return {
            "issuer": self.issuer,
            "feed": self.feed,
            "minimum_svn": self.minimum_svn,
            "includes": list(self.includes),
        }


@dataclass(frozen=True, slots=True)
class Switches:
    """The policy's flags."""

    properties_access: bool = True
    """Statistics and process lists: what ``ctr task metrics`` and ``ps`` show."""
    dump_stacks: bool = False
    runtime_logging: bool = False
    permissive: bool = False
    """Nothing is denied for what it is, only recorded: to learn what a workload needs. Written only where it is so."""
    network: bool = True
    """Whether the host may connect the containers to one. Written only where it may not."""
    forward_ports: tuple[int, ...] = ()
    """Ports on the containers' loopback that the host may connect to (``kubectl port-forward``)."""
    extra: Mapping[str, bool] = field(default_factory=dict)

    def flags(self) -> dict[str, bool]:
        """Every flag by its name in the policy."""
        return {
            "allow_properties_access": self.properties_access,
            "allow_dump_stacks": self.dump_stacks,
            "allow_runtime_logging": self.runtime_logging,
            "allow_environment_variable_dropping": False,
            "allow_unencrypted_scratch": False,
            "allow_capability_dropping": False,
            "allow_host_network": False,
            **({"permissive": True} if self.permissive else {}),
            **({} if self.network else {"allow_network": False}),
            **self.extra,
        }
