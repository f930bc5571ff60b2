# SPDX-License-Identifier: Apache-2.0
"""The execution policy as typed, immutable values. Made by ``parma_policy.reader``, read by ``parma_policy.framework``.

Names follow the policy's own (``reference``: the objects of confidential-container policies in use today).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from parma_policy.attestation import CLOUD_DEFAULT
from parma_policy.loaders import loads_code
from parma_policy.patterns import TextPattern, expression_set
from parma_policy.versions import Version

IdStrategy = Literal["any", "id", "name", "re2"]

CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
"""The five sets, in the order in which they are compared and printed."""


@dataclass(frozen=True, slots=True)
class EnvRule:
    """Which environment variables may be given: ``pattern`` on the whole ``NAME=value``, or one on each part.

    A variable that loads code is accepted only by a rule that spells its name: see `loads_code`.
    """

    pattern: TextPattern
    """On ``NAME=value``; on the name alone where ``value`` is given."""
    value: TextPattern | None
    required: bool
    parity: bool = False
    """Also variables that load code by an expression that does not name them, as the reference does."""

    @property
    def literal(self) -> bool:
        """Whether it accepts exactly one text."""
        return self.value is None and self.pattern.strategy == "string"

    def matches(self, variable: str) -> bool:
        """Whether this rule accepts ``variable``, a ``NAME=value`` text."""
        if loads_code(variable) and not self.parity and variable.partition("=")[0] not in self.pattern.text:
            return False
        if self.value is None:
            return self.pattern.matches(variable)
        name, separator, value = variable.partition("=")
        return bool(separator) and self.pattern.matches(name) and self.value.matches(value)

    def describe(self) -> str:
        """The variable's name as the rule has it; never its value."""
        return self.pattern.text.partition("=")[0] if self.value is None else self.pattern.text


_WORTH_COMBINING: Final = 3
"""Number of expressions from which on one pass for all is faster than one for each."""

_NAMED_EXPRESSION: Final = re.compile(r"\^?([A-Za-z0-9_]+)=(?![?*+{])[^|]*")


def _name_of(rule: EnvRule) -> str:
    """The only name of variables that the rule may accept, where that can be seen; else an empty string."""
    if rule.value is not None:
        return rule.pattern.text if rule.pattern.strategy == "string" else ""
    # Without an alternation the anchored expression begins with what it is written to begin with.
    named = _NAMED_EXPRESSION.fullmatch(rule.pattern.text)
    return named[1] if named else ""


@dataclass(frozen=True, slots=True)
class EnvRules:
    """A list of rules, prepared so that literal ones cost one lookup, and others are asked about their own names."""

    rules: tuple[EnvRule, ...]
    _literal: frozenset[str] = field(init=False, compare=False, repr=False)
    _by_name: Mapping[str, tuple[EnvRule, ...]] = field(init=False, compare=False, repr=False)
    _unnamed: tuple[EnvRule, ...] = field(init=False, compare=False, repr=False)
    _combined: Callable[[str], bool] | None = field(init=False, compare=False, repr=False)
    _required_literal: frozenset[str] = field(init=False, compare=False, repr=False)
    _required_other: tuple[EnvRule, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        literal = [rule for rule in self.rules if rule.literal]
        by_name: dict[str, tuple[EnvRule, ...]] = {}
        other = [rule for rule in self.rules if not rule.literal]
        for rule in other:
            name = _name_of(rule)
            by_name[name] = (*by_name.get(name, ()), rule)
        object.__setattr__(self, "_literal", frozenset(rule.pattern.text for rule in literal))
        object.__setattr__(self, "_unnamed", by_name.pop("", ()))
        object.__setattr__(self, "_by_name", by_name)
        required = frozenset(rule.pattern.text for rule in literal if rule.required)
        object.__setattr__(self, "_required_literal", required)
        expressions = tuple(rule.pattern.text for rule in other if rule.value is None and rule.pattern.usable)
        combined = expression_set(expressions) if len(expressions) >= _WORTH_COMBINING else None
        object.__setattr__(self, "_combined", combined)
        object.__setattr__(self, "_required_other", tuple(rule for rule in other if rule.required))

    def accepts(self, variable: str) -> bool:
        """Whether some rule accepts ``variable``."""
        if variable in self._literal:
            return True
        rules = self._by_name.get(variable.partition("=")[0], ()) + self._unnamed
        if not rules:
            return False
        if self._combined is not None and not loads_code(variable) and self._combined(variable):
            return True
        return any(rule.matches(variable) for rule in rules)

    def unaccepted(self, variables: tuple[str, ...]) -> list[str]:
        """The variables that no rule accepts, in the order given."""
        return [variable for variable in variables if not self.accepts(variable)]

    def unmet(self, variables: tuple[str, ...]) -> list[EnvRule]:
        """The required rules that no variable fulfils."""
        return [rule for rule in self.rules if rule.required and not any(map(rule.matches, variables))]

    def allow(self, variables: tuple[str, ...]) -> bool:
        """Whether every variable is accepted and every required rule fulfilled."""
        return (
            self._required_literal.issubset(variables)
            and all(map(self.accepts, variables))
            and all(any(map(rule.matches, variables)) for rule in self._required_other)
        )

    def __add__(self, other: EnvRules) -> EnvRules:
        return EnvRules(self.rules + other.rules)


Pins = frozenset[tuple[str, str]]
"""Path below the mount's source, empty for a source that is a file, and SHA-256 (64 hex digits), of every file."""


@dataclass(frozen=True, slots=True)
class MountRule:
    """One mount that may be asked for. ``source`` is literal, or an expression behind ``sandbox://``,
    ``hugepages://``; ``plan9://`` stands for any share mounted for the container."""

    destination: str
    source: str
    type: str
    options: tuple[str, ...]
    source_tail: TextPattern | None = field(default=None, compare=False, repr=False)
    """What follows the ``sandbox://`` or ``hugepages://`` prefix, compiled."""
    pins: Pins | None = None
    """What the host must provide there, to the byte; None where it may provide what it likes, or nothing at all."""
    updates: bool = False
    """Whether the host may change what it has provided."""


@dataclass(frozen=True, slots=True)
class IdName:
    """Accepts a user or group: by anything, numeric id, name, or expression on the name."""

    pattern: str
    strategy: IdStrategy
    _expression: TextPattern | None = field(default=None, compare=False, repr=False)

    def matches(self, number: str, name: str) -> bool:
        """Whether the user or group with this id and name (both as text) is accepted."""
        match self.strategy:
            case "any":
                return True
            case "id":
                return number == self.pattern
            case "name":
                return name == self.pattern
            case "re2":
                return self._expression is not None and self._expression.matches(name)


@dataclass(frozen=True, slots=True)
class User:
    """The user of a container. ``umask`` is four octal digits."""

    user: IdName
    groups: tuple[IdName, ...]
    umask: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five Linux capability sets. Lists in a policy and in a request are compared as sets of equal length."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    def sets(self) -> tuple[tuple[str, ...], ...]:
        """The five lists in the order of ``CAPABILITY_SETS``."""
        return self.bounding, self.effective, self.inheritable, self.permitted, self.ambient

    def same_as(self, other: Capabilities) -> bool:
        """Whether all five are equal as sets, duplicates counting as a difference."""
        return all(
            mine == theirs or (len(mine) == len(theirs) and set(mine) == set(theirs))
            for mine, theirs in zip(self.sets(), other.sets(), strict=True)
        )

    def intersection(self, other: Capabilities) -> Capabilities:
        """Per set the members of ``self`` that ``other`` has too, each once, in order."""
        return Capabilities(
            *(
                tuple(dict.fromkeys(name for name in mine if name in theirs))
                for mine, theirs in zip(self.sets(), other.sets(), strict=True)
            )
        )

    def count(self) -> int:
        """Number of members of all five sets together."""
        return sum(map(len, self.sets()))


@dataclass(frozen=True, slots=True)
class ExecProcess:
    """A command that may be run in a started container, and the signals that it may get."""

    command: tuple[str, ...]
    signals: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that one container may be."""

    command: tuple[str, ...]
    env_rules: EnvRules
    layers: tuple[str, ...]
    """dm-verity root hashes, 64 lower-case hex digits each, base layer first."""
    mounts: tuple[MountRule, ...]
    exec_processes: tuple[ExecProcess, ...]
    signals: frozenset[int]
    """That the container's first process may get."""
    allow_elevated: bool
    working_dir: str
    allow_stdio_access: bool
    no_new_privileges: bool
    user: User
    capabilities: Capabilities | None
    """None: the defaults of privileged or unprivileged containers."""
    seccomp_profile_sha256: str
    id: str = ""
    name: str = ""
    attestation: frozenset[str] | None = None
    """Names of ``parma_policy.attestation``; None where the policy says nothing of it."""
    identity: bytes = b""
    """SHA-256 of the definition, which keys derived for the container are bound to; empty where it gets none."""

    def may_reach(self, *, sandbox: bool) -> frozenset[str]:
        """What of attestation the container may reach; ``sandbox``: it is a pod's sandbox container."""
        if self.attestation is not None:
            return self.attestation
        return frozenset() if sandbox else CLOUD_DEFAULT

    place: str = field(default="", compare=False)
    """Where it stands, like ``containers[2]``; behind the package name where that is a fragment's."""


@dataclass(frozen=True, slots=True)
class ExternalProcess:
    """A process that may run in the VM outside of any container."""

    command: tuple[str, ...]
    env_rules: EnvRules
    working_dir: str
    allow_stdio_access: bool
    place: str = field(default="", compare=False)
    """Where it stands, like ``external_processes[0]``."""


SvnValue = int | Version
"""A security version number: a whole number, or a semantic version. The two kinds are never compared."""


@dataclass(frozen=True, slots=True)
class FragmentRule:
    """A signed fragment that may be loaded."""

    issuer: str
    feed: str
    minimum_svn: SvnValue | None
    """None: not a version at all, so nothing satisfies it."""
    includes: frozenset[str]
    parameters: Mapping[str, Any] | None = None
    """Immutable literals; None where the rule says nothing of parameters."""
    required_receipts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustListRule:
    """A transparency trust list that may be loaded."""

    issuer: str
    subject: str
    minimum_svn: int
    allowed_ledgers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlatformRule:
    """Environment and mounts that the platform adds to every container; each makes one variant of each container."""

    env_rules: EnvRules
    mounts: tuple[MountRule, ...]


@dataclass(frozen=True, slots=True)
class Flags:
    """Switches of a policy. Absent is off."""

    allow_properties_access: bool = False
    allow_dump_stacks: bool = False
    allow_runtime_logging: bool = False
    allow_host_network: bool = False
    allow_environment_variable_dropping: bool = False
    allow_unencrypted_scratch: bool = False
    allow_capability_dropping: bool = False
    allow_log_provider_dropping: bool = False


@dataclass(frozen=True, slots=True)
class Extensions:
    """Switches that only Parma knows; the reference enforcer ignores them."""

    permissive: bool = False
    """Nothing is denied for what it is; what would have been is allowed and recorded. See ``framework.permissive``."""
    denials_show_arguments: bool = False
    """Denials quote whole command lines; otherwise the program only."""
    denials_show_environment: bool = False
    """Denials quote environment variables with their values; otherwise the names only."""
    allow_network: bool = True
    """The host may connect the containers to a network. On where it is absent, as policies that were written for the
    cloud service take a network for granted."""


@dataclass(frozen=True, slots=True)
class ContainerIndex:
    """Containers and what is asked of them most: by layers, and the set of all layers."""

    containers: tuple[Container, ...] = ()
    by_layers: Mapping[tuple[str, ...], tuple[Container, ...]] = field(init=False, compare=False, repr=False)
    layers: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        groups: dict[tuple[str, ...], list[Container]] = {}
        for container in self.containers:
            groups.setdefault(container.layers, []).append(container)
        by_layers = MappingProxyType({layers: tuple(group) for layers, group in groups.items()})
        object.__setattr__(self, "by_layers", by_layers)
        object.__setattr__(self, "layers", frozenset(layer for layers in groups for layer in layers))


@dataclass(frozen=True, slots=True)
class Policy:
    """A loaded execution policy.

    ``api_problem`` and ``framework_problem`` are empty for a good policy. With an ``api_problem`` every request is
    refused; with a ``framework_problem`` the policy has no containers, external processes and fragments, whatever
    its text lists (its flags still count).
    """

    sha256: bytes
    """Of the policy's bytes as loaded: what HOST_DATA must be."""
    api_version: Version | None
    framework_version: Version | None
    api_problem: str = ""
    framework_problem: str = ""
    framework_contradiction: bool = False
    """The problem is that the policy gives two framework versions."""
    rules: frozenset[str] = frozenset()
    """Enforcement points that the policy hands to the framework."""
    has_reason: bool = False
    flags: Flags = field(default_factory=Flags)
    extensions: Extensions = field(default_factory=Extensions)
    containers: ContainerIndex = field(default_factory=ContainerIndex)
    mountable_layers: frozenset[str] = frozenset()
    """Root hashes that read-only devices may have."""
    external_processes: tuple[ExternalProcess, ...] = ()
    no_external_processes: bool = False
    """Whether none counts, fragments' included: so for a policy of an older framework version that has no such list."""
    fragments: tuple[FragmentRule, ...] = ()
    platform_rules: tuple[PlatformRule, ...] = ()
    transparency_trust_lists: tuple[TrustListRule, ...] = ()
    allowed_log_providers: tuple[str, ...] | None = None
    forward_ports: frozenset[int] = frozenset()
    """Ports on the containers' loopback that the host may connect to. Only Parma knows them, as the extensions."""
    parity: bool = False
    """Decide exactly as the reference enforcer does, without the extra strictness listed in ``strictness``."""
