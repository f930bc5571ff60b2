# SPDX-License-Identifier: Apache-2.0
"""A whole policy, from its text."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from typing import Final

from parma_policy.model import (
    ContainerIndex,
    Extensions,
    Flags,
    Policy,
)
from parma_policy.points import POINTS
from parma_policy.reader.containers import ContainerReader
from parma_policy.reader.errors import PolicyTextError
from parma_policy.reader.limits import MAX_POLICY_BYTES
from parma_policy.reader.lists import LISTS, Items, VersionClaim, claimed, framework_claim, list_of, node_of
from parma_policy.reader.syntax import RULES_HINT, Array, Document, Object, Reference, Statement, parse
from parma_policy.versions import FRAMEWORK_VERSION
from parma_wire.errors import Malformed

_FLAGS: Final = tuple(Flags.__dataclass_fields__)
_EXTENSIONS: Final = tuple(Extensions.__dataclass_fields__)
DATA: Final = (
    "api_version",
    "api_svn",
    "framework_version",
    "framework_svn",
    *LISTS,
    "allowed_log_providers",
    "forward_ports",
    *_FLAGS,
    *_EXTENSIONS,
)
"""Names of a policy's data."""
_MAX_PORTS: Final = 1000
_REASON_MEMBERS: Final = {"errors": "data.framework.errors", "error_objects": "data.framework.error_objects"}
PERMISSIVE_LINE: Final = "permissive := true"
"""How a permissive policy says so: in a line of its own, exactly so. ``parma_snp.status`` looks for it, too."""
_REASON_FORMS: Final = "data.framework.reason, or an object of data.framework.errors and data.framework.error_objects"


def load(data: bytes, *, parity: bool = False) -> Policy:
    """Reads an execution policy from the bytes that HOST_DATA is the hash of.

    ``parity`` switches off the strictness listed in ``parma_policy.strictness``; never in a guest. Raises Malformed,
    mostly PolicyTextError, which says line and column.
    """
    document = parse(decode(data))
    _check_package(document)
    rules = frozenset(_check_names(document, parity=parity))
    return build(document, hashlib.sha256(data).digest(), rules, parity=parity)


def has_own_rules(data: bytes, *, parity: bool = False) -> bool:
    """Whether ``load`` refuses these bytes for what may be rules of the policy's own, or other Rego that is more than
    data: a matter for an engine. Raises Malformed for bytes that are no text of acceptable size."""
    text = decode(data)
    try:
        document = parse(text)
        _check_package(document)
        return not set(_check_names(document, parity=parity)) <= set(POINTS)
    except PolicyTextError:
        return True


def decode(data: bytes) -> str:
    """The text of a policy, its size checked. Raises Malformed."""
    if len(data) > MAX_POLICY_BYTES:
        raise Malformed(f"the policy has {len(data)} bytes", expected=f"at most {MAX_POLICY_BYTES}")
    if not data.strip():
        raise Malformed("the policy is empty", hint="make one with 'parma policy generate'")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"the policy is not UTF-8 text: bad byte at offset {error.start}") from None


def _api_claim(document: Document) -> VersionClaim:
    claim, value = claimed(document, "api_version", "api_svn")
    if value is None:
        return VersionClaim(None, "policy does not define api_version")
    return claim


def build(document: Document, sha256: bytes, rules: frozenset[str], *, parity: bool) -> Policy:
    """The policy of these definitions, which hands ``rules`` to the framework. Raises PolicyTextError."""
    api = _api_claim(document)
    framework = framework_claim(document)
    reader = ContainerReader(framework.version or FRAMEWORK_VERSION, parity)
    items = Items.read(document, reader) if not framework.problem else Items.unusable(document, parity=parity)
    return Policy(
        sha256=sha256,
        api_version=api.version,
        framework_version=framework.version,
        api_problem=api.problem,
        framework_problem=framework.problem,
        framework_contradiction=framework.contradiction,
        rules=rules,
        has_reason="reason" in document.statements,
        flags=_flags(document),
        extensions=Extensions() if parity else _extensions(document),
        containers=items.containers,
        mountable_layers=_mountable_layers(document, items.containers, parity=parity),
        external_processes=items.external_processes,
        no_external_processes=(framework.version or FRAMEWORK_VERSION) < FRAMEWORK_VERSION
        and "external_processes" not in document.statements,
        fragments=items.fragments,
        platform_rules=items.platform_rules,
        transparency_trust_lists=items.transparency_trust_lists,
        allowed_log_providers=_log_providers(document),
        forward_ports=frozenset() if parity else _forward_ports(document),
        parity=parity,
    )


def _check_package(document: Document) -> None:
    if document.package != "policy":
        raise document.source.error(0, f"package {document.package}", expected="package policy")


def _check_names(document: Document, *, parity: bool) -> Iterator[str]:
    """Checks that every definition is known; yields the enforcement points handed to the framework."""
    for name, statement in document.statements.items():
        if name == "reason":
            _check_reason(document, statement)
        elif name in POINTS:
            _check_rule(document, statement)
            yield name
        elif name not in DATA and not parity:
            close = difflib.get_close_matches(name, [*DATA, *POINTS, "reason"], 1)
            hint = f"did you mean {close[0]!r}?" if close else RULES_HINT
            raise document.source.error(statement.offset, f"unknown definition {name[:80]!r}", hint=hint)


def _check_rule(document: Document, statement: Statement) -> None:
    expected = f"data.framework.{statement.name}"
    if statement.value != Reference(expected):
        message = f"enforcement point {statement.name} is not handed to the framework"
        raise document.source.error(statement.value_offset, message, expected=expected, hint=RULES_HINT)


def _check_reason(document: Document, statement: Statement) -> None:
    value = statement.value
    if value == Reference("data.framework.reason"):
        return
    members = value if isinstance(value, Object) else Object()
    good = all(item == Reference(_REASON_MEMBERS.get(key, "")) for key, item in members.items())
    if "errors" not in members or not good:
        raise document.source.error(statement.value_offset, "unknown reason", expected=_REASON_FORMS, hint=RULES_HINT)


def _flags(document: Document) -> Flags:
    given = {name: document.statements[name] for name in _FLAGS if name in document.statements}
    return Flags(**{name: node_of(document, statement).boolean() for name, statement in given.items()})


def _extensions(document: Document) -> Extensions:
    given = {name: document.statements[name] for name in _EXTENSIONS if name in document.statements}
    extensions = Extensions(**{name: node_of(document, statement).boolean() for name, statement in given.items()})
    if extensions.permissive:
        _check_line(document, given["permissive"].offset, PERMISSIVE_LINE)
    return extensions


def _check_line(document: Document, offset: int, line: str) -> None:
    """Some definitions must be found by whoever has the text but no reader of Rego: a relying party, ``grep``."""
    text = document.source.text
    written = text[:offset].rpartition("\n")[2] + text[offset:].partition("\n")[0]
    if written.removesuffix("\r") != line:
        raise document.source.error(offset, "not written so that everybody finds it", expected=f"the line '{line}'")


def _log_providers(document: Document) -> tuple[str, ...] | None:
    statement = document.statements.get("allowed_log_providers")
    return node_of(document, statement).strings() if statement else None


def _forward_ports(document: Document) -> frozenset[int]:
    statement = document.statements.get("forward_ports")
    elements = node_of(document, statement).elements(_MAX_PORTS) if statement else ()
    return frozenset(element.integer(1, 65535) for element in elements)


def _mountable_layers(document: Document, containers: ContainerIndex, *, parity: bool) -> frozenset[str]:
    """Layers that devices may have. The reference takes them from the text even where its version makes the
    containers unusable."""
    if not parity:
        return containers.layers
    return frozenset(
        layer
        for node in list_of(document, "containers")
        if isinstance(node.value, Object) and isinstance(layers := node.value.get("layers"), Array)
        for layer in layers
        if isinstance(layer, str)
    )
