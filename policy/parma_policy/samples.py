# SPDX-License-Identifier: Apache-2.0
"""Texts that an expression accepts, and texts that it nearly accepts: witnesses for comparing policies.

The drawing follows Python's parse of the expression, whose syntax is close to RE2's; what it draws is then tried with
RE2 itself, so that a difference between the two costs a sample, never an answer. No number of samples proves that two
expressions accept the same.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any, Final

from parma_policy.patterns import TextPattern

_VARIANTS: Final = 8
_MAX_REPEAT: Final = 3
_MAX_LENGTH: Final = 200
_DEFAULT_CHARACTERS: Final = "a0-/Z"


def samples(pattern: TextPattern) -> list[str]:
    """Texts that the pattern accepts, each once; empty where none could be drawn."""
    if pattern.strategy == "string":
        return [pattern.text]
    drawn = dict.fromkeys((*_drawn(pattern.text), "", "a", "0", "/", pattern.text))
    return [text for text in drawn if pattern.matches(text)]


def near_misses(text: str) -> Iterator[str]:
    """Texts one step away: what sloppy anchoring, dots and alternations let through."""
    yield f"{text}junk"
    yield f"junk{text}"
    yield f"{text}\njunk"
    yield f"{text}/../x"
    yield text.upper()
    yield text.swapcase()
    yield text[:-1]
    yield text.replace(".", "x")


def _drawn(expression: str) -> Iterator[str]:
    parser: Any = importlib.import_module("re._parser")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(expression.removeprefix("^").removesuffix("$"))
    except Exception:  # noqa: BLE001  # not Python's syntax: nothing is drawn
        return
    for variant in range(_VARIANTS):
        yield _draw(tree, variant)[:_MAX_LENGTH]


def _draw(tree: Any, variant: int) -> str:
    return "".join(_draw_one(str(operation), value, variant + index) for index, (operation, value) in enumerate(tree))


def _draw_one(operation: str, value: Any, variant: int) -> str:
    match operation:
        case "LITERAL":
            return chr(value)
        case "ANY" | "NOT_LITERAL":
            excluded = chr(value) if operation == "NOT_LITERAL" else ""
            characters = _DEFAULT_CHARACTERS.replace(excluded, "") if excluded else _DEFAULT_CHARACTERS
            return characters[variant % len(characters)]
        case "IN":
            return _member(value, variant)
        case "BRANCH":
            branches = value[1]
            return _draw(branches[variant % len(branches)], variant)
        case "SUBPATTERN":
            return _draw(value[-1], variant)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            low, high, inner = value
            count = min(int(low) + variant % (_MAX_REPEAT + 1), int(high))
            return "".join(_draw(inner, variant + number) for number in range(count))
        case _:
            return ""


def _member(members: Any, variant: int) -> str:
    """One character of a class."""
    choices = [choice for operation, value in members for choice in _choices(str(operation), value)]
    if str(members[0][0]) == "NEGATE":
        allowed = [character for character in _DEFAULT_CHARACTERS + "bcxyz1_." if character not in choices]
        return allowed[variant % len(allowed)] if allowed else ""
    return choices[variant % len(choices)] if choices else ""


def _choices(operation: str, value: Any) -> list[str]:
    match operation:
        case "LITERAL":
            return [chr(value)]
        case "RANGE":
            low, high = value
            return [chr(low), chr(high), chr((low + high) // 2)]
        case "CATEGORY":
            kinds = {"DIGIT": ["0", "7"], "SPACE": [" "], "WORD": ["a", "Z", "_", "5"]}
            name = str(value).removeprefix("CATEGORY_")
            return kinds.get(name, ["-", "a"] if name.startswith("NOT") else [])
        case _:
            return []
