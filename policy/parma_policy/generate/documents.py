# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON texts as ``nodes``, read with care: sources come from anywhere.

Of YAML only what the standard safe loader composes, without any tags of the document's own. Anchors and ``<<`` merges
are resolved here, with a limit on how much they may expand to; a key given twice in one mapping is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from parma_policy.generate.nodes import Node, Scalar, Value
from parma_policy.generate.problems import Problems
from parma_wire.errors import Malformed, NotFound, Unavailable

MAX_BYTES: Final = 8 << 20
MAX_DOCUMENTS: Final = 1000
MAX_NODES: Final = 200_000
"""Values in one source after the expansion of its aliases."""
MAX_DEPTH: Final = 64

_MERGE: Final = "tag:yaml.org,2002:merge"
_CORE_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "null", "bool", "int", "float", "timestamp", "merge", "value", "seq", "map")
)
_NULL_WORDS: Final = frozenset(("", "~", "null", "Null", "NULL"))


def read_file(path: Path, what: str = "file") -> bytes:
    """The bytes of a source. Raises NotFound, Unavailable, and Malformed for one that is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no {what} {path}") from None
    except OSError as error:
        raise Unavailable(f"cannot read {what} {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise Malformed(f"{path} is too large", expected=f"at most {MAX_BYTES} bytes")
    return data


def decoded(data: bytes, source: str) -> str:
    """UTF-8 text. Raises Malformed."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{source} is not UTF-8 text: bad byte at offset {error.start}") from None


def yaml_documents(text: str, problems: Problems) -> list[Node]:
    """The documents of a YAML text that are not empty; their paths are empty.

    Raises Malformed for what is no YAML, and for what goes beyond the limits.
    """
    composed = []
    try:
        for number, root in enumerate(yaml.compose_all(text, yaml.SafeLoader)):
            if number == MAX_DOCUMENTS:
                raise Malformed(f"{problems.source} has too many documents", expected=f"at most {MAX_DOCUMENTS}")
            composed.append(root)
    except yaml.YAMLError as error:
        raise Malformed(f"{problems.source} is not YAML: {_described(error)}") from None
    except RecursionError:
        raise Malformed(f"{problems.source} is nested too deeply", expected=f"at most {MAX_DEPTH} levels") from None
    converter = _Converter(problems)
    nodes = [converter.node(root, "", 0) for root in composed if root is not None]
    return [node for node in nodes if not node.is_null]


def json_document(text: str, problems: Problems) -> Node:
    """A JSON text. Raises Malformed for what is none, for keys given twice and for NaN."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(items)
        if len(members) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            raise Malformed(f"{problems.source}: member {twice[:80]!r} is given twice in one object")
        return members

    def constant(name: str) -> None:
        raise Malformed(f"{problems.source}: {name} is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{problems.source} is not JSON: {error}") from None
    return _from_json(value, "", problems, 0)


def _from_json(value: object, path: str, problems: Problems, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise Malformed(f"{problems.source} is nested too deeply", expected=f"at most {MAX_DEPTH} levels")
    converted: Value
    match value:
        case dict():
            converted = {
                name: _from_json(item, member_path(path, name), problems, depth + 1) for name, item in value.items()
            }
        case list():
            converted = [
                _from_json(item, f"{path}[{number}]", problems, depth + 1) for number, item in enumerate(value)
            ]
        case str():
            converted = Scalar(value)
        case None:
            converted = Scalar("null", plain=True, null=True)
        case _:
            converted = Scalar(json.dumps(value), plain=True)
    return Node(converted, path, 0, problems)


def member_path(path: str, name: str) -> str:
    """The path of a member: ``a.b``, with quotes where the name is not a plain word."""
    word = name if name and all(character.isalnum() or character in "_-" for character in name) else json.dumps(name)
    if not path or path.endswith(":"):
        return f"{path}{word}"
    return f"{path}.{word}"


class _Converter:
    """From PyYAML's nodes to ours."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._count = 0

    def node(self, given: yaml.Node, path: str, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            message = f"{self._problems.source} expands to too many values"
            raise Malformed(message, expected=f"at most {MAX_NODES}, aliases included")
        if depth > MAX_DEPTH:
            message = f"{self._problems.source} is nested too deeply, or an alias contains itself"
            raise Malformed(message, expected=f"at most {MAX_DEPTH} levels")
        line = given.start_mark.line + 1
        if given.tag not in _CORE_TAGS:
            self._problems.add(path or ".", f"tag {given.tag} is not supported", line=line)
        return Node(self._value(given, path, depth), path, line, self._problems)

    def _value(self, given: yaml.Node, path: str, depth: int) -> Value:
        if isinstance(given, yaml.MappingNode):
            return self._mapping(given, path, depth)
        if isinstance(given, yaml.SequenceNode):
            return [self.node(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(given.value)]
        # Whatever tag PyYAML found: it knows YAML 1.1 only, and other readers guess otherwise.
        plain = isinstance(given, yaml.ScalarNode) and given.style is None
        return Scalar(str(given.value), plain=plain, null=plain and given.value in _NULL_WORDS)

    def _mapping(self, given: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in given.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(path or ".", "a key that is not a plain string", line=line)
                continue
            if key.tag == _MERGE:
                self._merge(merged, value, path, depth)
                continue
            name = str(key.value)
            if name in own:
                raise Malformed(
                    f"{self._problems.source}, line {line}: key {name[:80]!r} is given twice in one mapping"
                )
            own[name] = self.node(value, member_path(path, name), depth + 1)
        return {**merged, **own}

    def _merge(self, merged: dict[str, Node], value: yaml.Node, path: str, depth: int) -> None:
        """``<<``: members of another mapping, or of several of which the first wins."""
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._problems.add(path or ".", "'<<' merges mappings only", line=value.start_mark.line + 1)
                continue
            node = self.node(source, path, depth + 1)
            for name, item in node.members().items():
                merged.setdefault(name, item)


def _described(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else problem
