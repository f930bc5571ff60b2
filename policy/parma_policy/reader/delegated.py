# SPDX-License-Identifier: Apache-2.0
"""What a policy delegates to others: fragments and transparency trust lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from parma_policy.model import FragmentRule, SvnValue, TrustListRule
from parma_policy.reader.limits import MAX_INTEGER
from parma_policy.reader.shape import Members, Node
from parma_policy.reader.syntax import FrozenJson, Value, freeze
from parma_policy.versions import Version

INCLUDABLE: Final = (
    "containers",
    "fragments",
    "external_processes",
    "namespace",
    "platform_rules",
    "transparency_trust_lists",
)
"""What ``includes`` of a fragment may name."""

_NONE: Final[Mapping[str, FrozenJson]] = MappingProxyType({})
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,16}", re.ASCII)


def svn_of(value: Value) -> SvnValue | None:
    """A security version number written as a number, as a number in a string, or as a semantic version."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    return int(value) if _WHOLE_NUMBER.fullmatch(value) else Version.parse(value)


def fragment_rule(node: Node, *, parity: bool, always_parameters: bool) -> FragmentRule:
    """One element of ``fragments``. ``always_parameters``: it gives an empty set where it has none."""
    members = node.members(("issuer", "feed", "minimum_svn", "includes"), ("parameters", "required_receipts"))
    minimum = members["minimum_svn"]
    svn = svn_of(minimum.value)
    if svn is None and not parity:
        raise minimum.wrong("a whole number or a semantic version")
    receipts = members.get("required_receipts")
    return FragmentRule(
        issuer=members["issuer"].string(),
        feed=members["feed"].string(),
        minimum_svn=svn,
        includes=_includes(members["includes"], parity=parity),
        parameters=_parameters(members, _NONE if always_parameters else None),
        required_receipts=receipts.strings() if receipts else (),
    )


def _includes(node: Node, *, parity: bool) -> frozenset[str]:
    names = node.strings()
    unknown = next((name for name in names if name not in INCLUDABLE), None)
    if unknown is not None and not parity:
        raise node.error(f"cannot include {unknown[:40]!r}", expected=", ".join(INCLUDABLE))
    return frozenset(names)


def _parameters(members: Members, otherwise: Mapping[str, FrozenJson] | None) -> Mapping[str, FrozenJson] | None:
    node = members.get("parameters")
    if node is None:
        return otherwise
    try:
        frozen = freeze(node.value)
    except TypeError:
        raise node.wrong("literals only") from None
    if not isinstance(frozen, Mapping):
        raise node.wrong("an object")
    return frozen


def trust_list_rule(node: Node) -> TrustListRule:
    """One element of ``transparency_trust_lists``."""
    members = node.members(("issuer", "subject", "minimum_svn", "allowed_ledgers"))
    return TrustListRule(
        members["issuer"].string(),
        members["subject"].string(),
        members["minimum_svn"].integer(-MAX_INTEGER, MAX_INTEGER),
        members["allowed_ledgers"].strings(),
    )
