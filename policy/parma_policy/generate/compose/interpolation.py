# SPDX-License-Identifier: Apache-2.0
"""``${NAME}`` in a Compose file, and files of variables.

Variables come from files that were named and from nowhere else: what the environment of whoever generates the policy
has does not count, or the same file would give another policy elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from parma_policy.generate.documents import decoded, read_file
from parma_policy.generate.nodes import Node, Scalar
from parma_wire.errors import Malformed

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":?[-?+]")
_MAX_DEPTH: Final = 8
_LINE: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$", "'": "'"}


class Unset(Malformed):
    """A variable that nobody set, or a reference that makes no sense."""


def interpolate(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """``text`` with its references replaced; ``$$`` is one dollar sign. Raises Unset."""
    if depth > _MAX_DEPTH:
        raise Unset("references to variables are nested too deeply")
    result = ""
    position = 0
    while position < len(text):
        if text[position] != "$":
            result += text[position]
            position += 1
        elif text.startswith("$$", position):
            result += "$"
            position += 2
        else:
            value, position = _reference(text, position + 1, variables, depth)
            result += value
    return result


def _reference(text: str, position: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """The value of the reference behind a dollar sign, and where it ends."""
    braces = text.startswith("{", position)
    name = _NAME.match(text, position + braces)
    if name is None:
        raise Unset(f"a '$' that refers to nothing in {text[:60]!r}", hint="write '$$' for a dollar sign")
    if not braces:
        return _value(name[0], variables), name.end()
    end = _closing(text, name.end())
    operator = _OPERATOR.match(text, name.end())
    if operator is None:
        if end != name.end():
            raise Unset(f"{text[position - 1 : end + 1]!r} is not understood", hint="${NAME}, ${NAME:-default}, ...")
        return _value(name[0], variables), end + 1
    given = variables.get(name[0])
    is_set = given is not None and (given != "" or not operator[0].startswith(":"))
    word = text[operator.end() : end]
    match operator[0][-1]:
        case "-":
            value = given or "" if is_set else interpolate(word, variables, depth + 1)
        case "+":
            value = interpolate(word, variables, depth + 1) if is_set else ""
        case _:
            if not is_set:
                raise Unset(f"variable {name[0]} must be set: {word}")
            value = given or ""
    return value, end + 1


def _value(name: str, variables: Mapping[str, str]) -> str:
    if name not in variables:
        hint = "give a file that sets it with --compose-env FILE, or a default: ${NAME:-default}"
        raise Unset(f"variable {name} is not set", hint=hint)
    return variables[name]


def _closing(text: str, position: int) -> int:
    """Where the brace of a reference is closed; references inside have their own."""
    depth = 1
    while position < len(text):
        if text.startswith("${", position):
            depth += 1
            position += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise Unset(f"'${{' without '}}' in {text[:60]!r}")


def fill_in(node: Node, variables: Mapping[str, str]) -> Node:
    """The document with every reference in a value replaced; keys and ``x-`` members stay as they are."""
    value = node.value
    if isinstance(value, dict):
        filled = {name: item if name.startswith("x-") else fill_in(item, variables) for name, item in value.items()}
        return Node(filled, node.path, node.line, node.problems)
    if isinstance(value, list):
        return Node([fill_in(item, variables) for item in value], node.path, node.line, node.problems)
    if "$" not in value.text or value.null:
        return node
    try:
        text = interpolate(value.text, variables)
    except Unset as error:
        node.problem(error.message, hint=error.hint)
        text = ""
    return Node(Scalar(text, filled_in=True), node.path, node.line, node.problems)


def read_env_file(path: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a file in Compose's format. Raises NotFound, Unavailable and Malformed."""
    found: dict[str, str] = {}
    for number, line in enumerate(decoded(read_file(path, "file of variables"), str(path)).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        where = f"{path}, line {number}"
        if match is None:
            raise Malformed(f"{where}: not understood", expected="NAME=value; a bare name is not taken from anywhere")
        try:
            found[match[1]] = _env_value(match[2], {**variables, **found})
        except Unset as error:
            raise Malformed(f"{where}: {error.message}", hint=error.hint) from None
    return found


def _env_value(text: str, variables: Mapping[str, str]) -> str:
    """A value: in single quotes as it is, in double quotes with escapes, else up to a comment."""
    for quote in "'\"":
        if text.startswith(quote):
            body, rest = _quoted(text, quote)
            if rest and not rest.startswith("#"):
                raise Unset("something behind the closing quote")
            return body if quote == "'" else interpolate(_unescaped(body), variables)
    return interpolate(re.split(r"[ \t]+#", text, maxsplit=1)[0].strip(), variables)


def _quoted(text: str, quote: str) -> tuple[str, str]:
    position = 1
    while position < len(text):
        if text[position] == "\\" and quote == '"':
            position += 1
        elif text[position] == quote:
            return text[1:position], text[position + 1 :].strip()
        position += 1
    raise Unset("a quote that is not closed", hint="values of several lines are not supported")


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise Unset(f"escape {match[0]!r} is not understood")
        return "$$" if match[1] == "$" else _ESCAPES[match[1]]

    return re.sub(r"\\(.?)", one, text)
