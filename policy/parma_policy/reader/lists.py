# SPDX-License-Identifier: Apache-2.0
"""What policies and fragments have in common: versions and lists of things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from parma_policy.model import ContainerIndex, ExternalProcess, FragmentRule, PlatformRule, TrustListRule
from parma_policy.reader.containers import ContainerReader
from parma_policy.reader.delegated import fragment_rule, trust_list_rule
from parma_policy.reader.errors import PolicyTextError
from parma_policy.reader.limits import MAX_CONTAINERS
from parma_policy.reader.shape import Node
from parma_policy.reader.syntax import Document, Statement
from parma_policy.versions import FRAMEWORK_VERSION, Version, version

_LISTS_SINCE: Final = version("0.5.0")
"""Framework version before which platform_rules and transparency_trust_lists do not count."""

LISTS: Final = ("containers", "external_processes", "fragments", "platform_rules", "transparency_trust_lists")
"""Names of the lists."""


@dataclass(frozen=True, slots=True)
class VersionClaim:
    """A version that a text claims under one of two names, and what is wrong with it (empty: nothing)."""

    version: Version | None
    problem: str
    contradiction: bool = False
    """The two names have different values."""


def claimed(document: Document, name: str, old_name: str) -> tuple[VersionClaim, object]:
    given = [document.statements[key].value for key in (name, old_name) if key in document.statements]
    if not given:
        return VersionClaim(None, f"{name} is missing"), None
    if len(given) == 2 and given[0] != given[1]:
        return VersionClaim(None, f"{name} and {old_name} have different values", contradiction=True), given[0]
    value = given[0]
    parsed = Version.parse(value) if isinstance(value, str) else None
    problem = "" if parsed else f"{name} is not a semantic version"
    return VersionClaim(parsed, problem), value


def framework_claim(document: Document) -> VersionClaim:
    """The framework version of a policy or fragment, checked against ours."""
    claim, value = claimed(document, "framework_version", "framework_svn")
    ours = FRAMEWORK_VERSION
    if value is None:
        return VersionClaim(None, f"framework_version is missing. Current version: {ours}")
    if claim.version is not None and claim.version > ours:
        problem = f"framework_version is ahead of the current version: {claim.version} is greater than {ours}"
        return VersionClaim(claim.version, problem)
    return claim


def node_of(document: Document, statement: Statement) -> Node:
    """The value of a definition. In a fragment its name has the package's in front."""
    path = statement.name if document.package == "policy" else f"{document.package}.{statement.name}"
    return Node(document.source, statement.value, statement.value_offset, path)


@dataclass(frozen=True, slots=True)
class Items:
    """The lists that a policy defines and that a fragment can contribute to."""

    containers: ContainerIndex = field(default_factory=ContainerIndex)
    external_processes: tuple[ExternalProcess, ...] = ()
    fragments: tuple[FragmentRule, ...] = ()
    platform_rules: tuple[PlatformRule, ...] = ()
    transparency_trust_lists: tuple[TrustListRule, ...] = ()

    @classmethod
    def unusable(cls, document: Document, *, parity: bool) -> Items:
        """What still counts in a policy whose framework version is no good."""
        return cls(transparency_trust_lists=_trust_lists_of_any_version(document) if parity else ())

    @classmethod
    def read(cls, document: Document, reader: ContainerReader) -> Items:
        """The lists of a document whose framework version is known."""
        containers = tuple(reader.container(node) for node in list_of(document, "containers", MAX_CONTAINERS))
        current = reader.framework_version >= _LISTS_SINCE
        old_policy = document.package == "policy" and not current
        whatever = reader.parity and old_policy
        return cls(
            ContainerIndex(containers),
            tuple(reader.external_process(node) for node in list_of(document, "external_processes")),
            tuple(
                fragment_rule(node, parity=reader.parity, always_parameters=old_policy)
                for node in list_of(document, "fragments")
            ),
            tuple(reader.platform_rule(node) for node in list_of(document, "platform_rules") if current),
            _trust_lists_of_any_version(document) if whatever else _trust_lists(document) if current else (),
        )


def _trust_lists(document: Document) -> tuple[TrustListRule, ...]:
    return tuple(trust_list_rule(node) for node in list_of(document, "transparency_trust_lists"))


def _trust_lists_of_any_version(document: Document) -> tuple[TrustListRule, ...]:
    """The reference takes those of the policy itself from the text, whatever its version; but an old policy may use
    the name for something else."""
    try:
        return _trust_lists(document)
    except PolicyTextError:
        return ()


def list_of(document: Document, name: str, limit: int = 1000) -> Iterator[Node]:
    statement = document.statements.get(name)
    return node_of(document, statement).elements(limit) if statement else iter(())
