# SPDX-License-Identifier: Apache-2.0
"""Fragments: parts of a policy that somebody else signs. Read as strictly as the policy itself, and only after their
envelope was checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from parma_policy.model import SvnValue
from parma_policy.reader.containers import ContainerReader
from parma_policy.reader.delegated import svn_of
from parma_policy.reader.errors import PolicyTextError
from parma_policy.reader.limits import MAX_PLACED
from parma_policy.reader.lists import LISTS, Items, VersionClaim, framework_claim
from parma_policy.reader.syntax import Array, Document, FrozenJson, Object, Parameter, Value, parse, place
from parma_policy.versions import FRAMEWORK_VERSION
from parma_wire.errors import Malformed

Parameters = Mapping[str, FrozenJson] | None
"""What a fragment rule of the policy gives, if it gives any."""

_FIRST_LINE: Final = re.compile(r"package +([a-zA-Z_][a-zA-Z0-9_]*)\s*")
_RESERVED: Final = ("framework", "api", "policy", "metadata")
_DATA: Final = ("svn", "framework_version", "framework_svn", "api_version", "api_svn", "parameters_api", *LISTS)


def fragment_package(text: str) -> str:
    """The package that a fragment declares in its first line. Raises Malformed where that is not allowed."""
    match = _FIRST_LINE.fullmatch(text.partition("\n")[0])
    if match is None:
        raise Malformed("the fragment's first line is no package declaration", expected="package NAME")
    if match[1] in _RESERVED:
        raise Malformed(f"a fragment cannot be package {match[1]}", expected="a name of its own")
    return match[1]


@dataclass(frozen=True, slots=True)
class FragmentText:
    """A parsed fragment, with its parameters not put in yet."""

    document: Document
    parity: bool

    @classmethod
    def parse(cls, text: str, *, parity: bool) -> FragmentText:
        """Parses a fragment. Raises PolicyTextError."""
        document = parse(text)
        for name, statement in document.statements.items():
            if name not in _DATA and not parity:
                raise document.source.error(statement.offset, f"a fragment cannot define {name[:80]!r}")
        return cls(document, parity)

    @property
    def svn(self) -> SvnValue | None:
        """The security version number in the text; None where there is none, or nothing that is one."""
        statement = self.document.statements.get("svn")
        return svn_of(statement.value) if statement else None

    @property
    def has_svn(self) -> bool:
        """Whether the text says anything about its security version."""
        return "svn" in self.document.statements

    @property
    def framework(self) -> VersionClaim:
        """The framework version that the text was written for."""
        return framework_claim(self.document)

    def items(self, parameters: Parameters) -> Items:
        """The fragment's lists with these parameters put in. Raises PolicyTextError."""
        substitution = _Substitution(self.document, parameters)
        statements = {}
        for name, statement in self.document.statements.items():
            try:
                value = substitution.put_in(statement.value, statement.value_offset)
            except PolicyTextError:
                if not self.parity:
                    raise
                continue  # in Rego a definition that uses an undefined value is undefined itself
            statements[name] = replace(statement, value=value)
        document = replace(self.document, statements=statements)
        return Items.read(document, ContainerReader(self.framework.version or FRAMEWORK_VERSION, self.parity))


@dataclass(slots=True)
class _Substitution:
    """Puts values in the places of ``parameter(...)``, with a limit on how much that may become in all."""

    document: Document
    parameters: Parameters
    left: int = MAX_PLACED

    def put_in(self, value: Value, offset: int) -> Value:
        """``value``, which stands at ``offset``, with each parameter replaced."""
        if isinstance(value, Parameter):
            found = self._look_up(value, offset)
            self.left -= _size(found)
            if self.left < 0:
                message = "parameters make the fragment too large"
                raise self.document.source.error(offset, message, expected=f"at most {MAX_PLACED} values")
            return found
        if isinstance(value, Array):
            array = Array()
            array.offsets = value.offsets
            array.extend(self.put_in(item, at) for item, at in zip(value, value.offsets, strict=True))
            return array
        if isinstance(value, Object):
            members = Object()
            members.offsets = value.offsets
            for key, item in value.items():
                members[key] = self.put_in(item, value.offsets[key])
            return members
        return value

    def _look_up(self, parameter: Parameter, offset: int) -> Value:
        error = self.document.source.error(offset, f"parameter {parameter.name[:80]!r} has no value")
        declared = self._declared(parameter.name)
        if declared is None:
            raise error
        given: Mapping[str, FrozenJson] = self.parameters or {}
        found: Value
        if parameter.name in given:
            found = place(given[parameter.name], offset)
        elif "default" in declared:
            found = declared["default"]
        else:
            raise error
        for member in parameter.members:
            if not isinstance(found, Object) or member not in found:
                raise error
            found = found[member]
        return found

    def _declared(self, name: str) -> Object | None:
        statement = self.document.statements.get("parameters_api")
        api = statement.value if statement else None
        declared = api.get(name) if isinstance(api, Object) else None
        return declared if isinstance(declared, Object) else None


def _size(value: Value) -> int:
    """Number of values in ``value``, itself included."""
    if isinstance(value, Array):
        return 1 + sum(map(_size, value))
    if isinstance(value, Object):
        return 1 + sum(map(_size, value.values()))
    return 1
