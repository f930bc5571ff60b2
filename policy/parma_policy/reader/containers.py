# SPDX-License-Identifier: Apache-2.0
"""Containers, external processes and platform rules, from parsed values."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Final, get_args

from parma_policy import attestation
from parma_policy.model import (
    CAPABILITY_SETS,
    Capabilities,
    Container,
    EnvRule,
    EnvRules,
    ExecProcess,
    ExternalProcess,
    IdName,
    IdStrategy,
    MountRule,
    Pins,
    PlatformRule,
    User,
)
from parma_policy.patterns import PatternCache, Strategy, TextPattern
from parma_policy.reader.limits import MAX_EXPRESSION_LENGTH, MAX_EXPRESSIONS, MAX_INTEGER
from parma_policy.reader.shape import Members, Node
from parma_policy.reader.syntax import Object
from parma_policy.versions import Version, version

_LAYER: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"[A-Za-z0-9._+-]{1,255}(/[A-Za-z0-9._+-]{1,255})*")
_UMASK: Final = re.compile(r"0[0-7]{3}")
_SECCOMP: Final = re.compile(r"(?:[0-9a-f]{64})?")
_CAPABILITY: Final = re.compile(r"CAP_[A-Z_]{2,32}")
_SOURCE_PREFIX: Final = re.compile(r"(?:sandbox|hugepages)://")
_STRATEGIES: Final[dict[str, Strategy]] = {"string": "string", "re2": "re2"}

_ALWAYS: Final = (
    "command",
    "env_rules",
    "layers",
    "mounts",
    "exec_processes",
    "signals",
    "allow_elevated",
    "working_dir",
    "allow_stdio_access",
)
# Members that came with a later version of the framework: older policies do not have them, or what they have there
# does not count.
_SINCE: Final[dict[str, Version]] = {
    "no_new_privileges": version("0.2.0"),
    "user": version("0.2.1"),
    "capabilities": version("0.2.2"),
    "seccomp_profile_sha256": version("0.2.3"),
}
_TERMINATING_SIGNALS_SINCE: Final = version("0.4.1")
_IGNORED: Final = ("id", "name", "mounted_cim", "registry_changes")

_ANYBODY: Final = User(IdName("", "any"), (IdName("", "any"),), "0022")


@dataclass(slots=True)
class ContainerReader:
    """Reads what stands in a policy or fragment of one framework version."""

    framework_version: Version
    parity: bool
    patterns: PatternCache = field(default_factory=PatternCache)

    def since(self, member: str) -> bool:
        """Whether the framework version of this text knows ``member`` of a container."""
        return self.framework_version >= _SINCE[member]

    # -- patterns ------------------------------------------------------------------------------------------------

    def pattern(self, node: Node, strategy: Strategy, text: str | None = None) -> TextPattern:
        """The pattern at ``node``; ``text`` where only a part of it is the pattern."""
        if self.parity and not isinstance(node.value, str):
            return TextPattern("", "unknown")
        text = node.string() if text is None else text
        if len(text) > MAX_EXPRESSION_LENGTH and strategy == "re2":
            raise node.error("expression too long", expected=f"at most {MAX_EXPRESSION_LENGTH} characters")
        pattern = self.patterns.make(text, strategy)
        if len(self.patterns) > MAX_EXPRESSIONS:
            raise node.error("too many different expressions", expected=f"at most {MAX_EXPRESSIONS}")
        if not pattern.valid and not self.parity:
            raise node.error(f"RE2 refuses the expression {text[:80]!r}", hint="see the syntax of RE2")
        return pattern

    def strategy(self, node: Node) -> Strategy:
        """How to compare. In parity mode an unknown strategy matches nothing."""
        name = node.string()
        if name in _STRATEGIES:
            return _STRATEGIES[name]
        if self.parity:
            return "unknown"
        raise node.error(f"unknown strategy {name[:40]!r}", expected="'string' or 're2'")

    def env_rule(self, node: Node) -> EnvRule:
        named = isinstance(node.value, Object) and "name" in node.value
        if not named:
            members = node.members(("pattern", "strategy"), ("required",))
            pattern = self.pattern(members["pattern"], self.strategy(members["strategy"]))
            return EnvRule(pattern, None, _required(members), self.parity)
        members = node.members(("name", "name_strategy", "value", "value_strategy"), ("required",))
        name = self.pattern(members["name"], self.strategy(members["name_strategy"]))
        value = self.pattern(members["value"], self.strategy(members["value_strategy"]))
        return EnvRule(name, value, _required(members), self.parity)

    def env_rules(self, node: Node) -> EnvRules:
        return EnvRules(tuple(self.env_rule(element) for element in node.elements()))

    # -- parts of a container ------------------------------------------------------------------------------------

    def mount(self, node: Node) -> MountRule:
        members = node.members(
            ("destination", "source", "type", "options"), () if self.parity else ("sha256", "updates")
        )
        source = members["source"].string()
        prefix = _SOURCE_PREFIX.match(source)
        tail = self.pattern(members["source"], "re2", source[prefix.end() :]) if prefix else None
        return MountRule(
            members["destination"].string(),
            source,
            members["type"].string(),
            members["options"].strings(),
            tail,
            *self.provided(members),
        )

    def provided(self, members: Members) -> tuple[Pins | None, bool]:
        """What a mount says of files that the host provides: the only content, and whether that may change."""
        pinned, updates = members.get("sha256"), members.get("updates")
        may_change = updates is not None and updates.boolean()
        if pinned is None:
            return None, may_change
        if may_change:
            raise pinned.error("files whose SHA-256 is given cannot have updates")
        if not isinstance(pinned.value, Object):
            return frozenset({("", self.digest(pinned))}), False
        files = pinned.members((), tuple(pinned.value))
        bad = next((path for path in pinned.value if not _FILE.fullmatch(path) or ".." in path.split("/")), None)
        if bad is not None or not pinned.value:
            raise pinned.error("no path of a file" if bad is not None else "no files", expected="paths below the mount")
        return frozenset((path, self.digest(files[path])) for path in pinned.value), False

    def digest(self, node: Node) -> str:
        """A SHA-256."""
        if not _DIGEST.fullmatch(node.string()):
            raise node.wrong("a SHA-256 in hex")
        return node.string()

    def mounts(self, node: Node) -> tuple[MountRule, ...]:
        return tuple(self.mount(element) for element in node.elements())

    def id_name(self, node: Node) -> IdName:
        members = node.members(("pattern", "strategy"))
        name = members["strategy"].string()
        strategy = next((known for known in get_args(IdStrategy) if known == name), None)
        if strategy is None and self.parity:
            return IdName("", "re2")
        if strategy is None:
            raise members["strategy"].error(f"unknown strategy {name[:40]!r}", expected="any, id, name or re2")
        text = members["pattern"].string()
        return IdName(text, strategy, self.pattern(members["pattern"], "re2") if strategy == "re2" else None)

    def user(self, node: Node) -> User:
        members = node.members(("user_idname", "group_idnames", "umask"))
        umask = members["umask"]
        if not _UMASK.fullmatch(umask.string()) and not self.parity:
            raise umask.wrong("four octal digits, like '0022'")
        groups = tuple(self.id_name(element) for element in members["group_idnames"].elements())
        return User(self.id_name(members["user_idname"]), groups, umask.string())

    def capabilities(self, node: Node) -> Capabilities | None:
        if node.value is None:
            return None
        members = node.members(CAPABILITY_SETS)
        sets = [self.capability_set(members[name]) for name in CAPABILITY_SETS]
        return Capabilities(*sets)

    def capability_set(self, node: Node) -> tuple[str, ...]:
        names = node.strings()
        if not self.parity:
            bad = next((name for name in names if not _CAPABILITY.fullmatch(name)), None)
            if bad is not None:
                raise node.error(f"{bad[:40]!r} is no capability", expected="names like 'CAP_KILL'")
            if len(set(names)) != len(names):
                raise node.error("a capability is listed twice")
        return names

    def exec_process(self, node: Node) -> ExecProcess:
        members = node.members(("command", "signals"))
        return ExecProcess(members["command"].strings(), self.signals(members["signals"]))

    def signals(self, node: Node) -> frozenset[int]:
        if self.parity:
            return frozenset(element.integer(-MAX_INTEGER, MAX_INTEGER) for element in node.elements())
        return node.signals()

    def layers(self, node: Node) -> tuple[str, ...]:
        layers = node.strings()
        if not self.parity:
            if not layers:
                raise node.error("no layers", expected="the root hash of each image layer, base layer first")
            bad = next((layer for layer in layers if not _LAYER.fullmatch(layer)), None)
            if bad is not None:
                raise node.error(f"{bad[:80]!r} is no layer", expected="64 lower-case hex digits")
        return layers

    def seccomp(self, node: Node) -> str:
        digest = node.string()
        if not _SECCOMP.fullmatch(digest) and not self.parity:
            raise node.wrong("a SHA-256 in hex, or an empty string for no profile")
        return digest

    def reachable(self, node: Node | None) -> frozenset[str] | None:
        """What the container may reach, or None where the policy does not say."""
        if node is None:
            return None
        names = node.strings()
        bad = next((name for name in names if name not in attestation.NAMES), None)
        if bad is not None:
            raise node.error(f"{bad[:80]!r} is nothing to reach", expected=", ".join(attestation.NAMES))
        if len(set(names)) != len(names):
            raise node.error("a name is listed twice")
        return frozenset(names)

    # -- whole objects -------------------------------------------------------------------------------------------

    def container(self, node: Node) -> Container:
        """One container, with what its framework version did not know yet filled in."""
        known = tuple(name for name in _SINCE if self.since(name))
        members = node.members((*_ALWAYS, *known), (*_SINCE, *_IGNORED, "attestation"))
        reachable = self.reachable(members.get("attestation"))
        init_signals = self.signals(members["signals"])
        if self.framework_version < _TERMINATING_SIGNALS_SINCE:
            init_signals |= {9, 15}
        return Container(
            command=members["command"].strings(),
            env_rules=self.env_rules(members["env_rules"]),
            layers=self.layers(members["layers"]),
            mounts=self.mounts(members["mounts"]),
            exec_processes=tuple(self.exec_process(element) for element in members["exec_processes"].elements()),
            signals=init_signals,
            allow_elevated=members["allow_elevated"].boolean(),
            working_dir=members["working_dir"].string(),
            allow_stdio_access=members["allow_stdio_access"].boolean(),
            no_new_privileges="no_new_privileges" in known and members["no_new_privileges"].boolean(),
            user=self.user(members["user"]) if "user" in known else _ANYBODY,
            capabilities=self.capabilities(members["capabilities"]) if "capabilities" in known else None,
            seccomp_profile_sha256=(
                self.seccomp(members["seccomp_profile_sha256"]) if "seccomp_profile_sha256" in known else ""
            ),
            id=_label(members, "id"),
            name=_label(members, "name"),
            attestation=reachable,
            identity=(
                _identity(members, (*_ALWAYS, *known)) if reachable and attestation.KEY_DERIVE in reachable else b""
            ),
            place=node.path,
        )

    def external_process(self, node: Node) -> ExternalProcess:
        """One process that may run outside of the containers."""
        members = node.members(("command", "env_rules", "working_dir", "allow_stdio_access"))
        return ExternalProcess(
            members["command"].strings(),
            self.env_rules(members["env_rules"]),
            members["working_dir"].string(),
            members["allow_stdio_access"].boolean(),
            node.path,
        )

    def platform_rule(self, node: Node) -> PlatformRule:
        """One set of additions of the platform."""
        members = node.members((), ("env_rules", "mounts"))
        env_rules, mounts = members.get("env_rules"), members.get("mounts")
        return PlatformRule(
            self.env_rules(env_rules) if env_rules else EnvRules(()), self.mounts(mounts) if mounts else ()
        )


def _required(members: Members) -> bool:
    node = members.get("required")
    return node is not None and node.boolean()


def _identity(members: Members, names: tuple[str, ...]) -> bytes:
    """SHA-256 of these members: of what the container is, wherever in a policy or fragment it stands."""
    definition = {name: members.value[name] for name in names}
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).digest()


def _label(members: Members, name: str) -> str:
    node = members.get(name)
    return node.value if node is not None and isinstance(node.value, str) else ""
