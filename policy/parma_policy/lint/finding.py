# SPDX-License-Identifier: Apache-2.0
"""Findings, and the policy that they are about."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from parma_policy.model import Policy
from parma_policy.reader.shape import Node
from parma_policy.reader.syntax import Array, Document, Object


class Severity(enum.IntEnum):
    """How bad it is, ascending."""

    INFO = 1
    """Worth knowing; may well be meant."""
    WARNING = 2
    """Probably wider, or deader, than meant."""
    ERROR = 3
    """Does not do what it seems to say, or gives the host what nobody should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``line`` and ``column`` count from 1; ``path`` is like ``containers[0].env_rules[2]``."""

    rule: str
    severity: Severity
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.severity.name.lower()}: {self.message} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A policy that loaded, with its parsed text."""

    document: Document
    policy: Policy

    def node(self, path: str) -> Node:
        """What stands at a path like ``containers[0].user.umask``; the nearest enclosing value where it is absent."""
        name, _, rest = path.replace("[", ".").replace("]", "").partition(".")
        statement = self.document.statements.get(name)
        if statement is None:
            return Node(self.document.source, None, 0, path)
        node = Node(self.document.source, statement.value, statement.offset, path)
        for part in rest.split(".") if rest else ():
            value = node.value
            if isinstance(value, Array) and part.isdigit() and int(part) < len(value):
                node = Node(node.source, value[int(part)], value.offsets[int(part)], path)
            elif isinstance(value, Object) and part in value:
                node = Node(node.source, value[part], value.offsets[part], path)
            else:
                break
        return node

    def finding(self, rule: str, severity: Severity, path: str, message: str) -> Finding:
        """A finding at a path."""
        error = self.node(path).error("")
        return Finding(rule, severity, error.line, error.column, path, message)
