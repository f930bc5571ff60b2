# SPDX-License-Identifier: Apache-2.0
"""``$(NAME)`` in commands and variables, as kubelet expands it.

``$$`` stands for one dollar sign, so ``$$(NAME)`` is never expanded; a name that is not known stays as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from parma_policy.generate.patterns import Text

Lookup = Callable[[str], Text | None]
"""The value of a variable, or None where there is none."""


def expand(given: str, lookup: Lookup) -> Text:
    """The text with its references replaced."""
    parts = []
    literal = ""
    position = 0
    while position < len(given):
        character = given[position]
        if character != "$" or position + 1 == len(given):
            literal += character
            position += 1
            continue
        name, length = _reference(given, position)
        value = None if name is None else lookup(name)
        if value is not None:
            parts += [Text.of(literal), value]
            literal = ""
        else:
            literal += "$" if given.startswith("$$", position) else given[position : position + length]
        position += length
    return Text.joined([*parts, Text.of(literal)])


def _reference(given: str, position: int) -> tuple[str | None, int]:
    """The name behind the dollar sign at ``position``, if it is a reference, and how many characters it takes."""
    if given[position + 1] != "(":
        return None, 2
    end = given.find(")", position)
    return (None, 2) if end < 0 else (given[position + 2 : end], end + 1 - position)


def expand_static(given: str, values: Mapping[str, str]) -> str:
    """The same with known values only, as kubelet does it for the commands of probes."""

    def lookup(name: str) -> Text | None:
        return Text.of(values[name]) if name in values else None

    return expand(given, lookup).literal or ""
