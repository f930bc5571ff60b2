# SPDX-License-Identifier: Apache-2.0
"""A source document as values that know their path and line, and readers of what is expected of them.

A reader notes a problem (``problems.Problems``) and goes on with the default, so that one run finds everything.
Every member of a mapping must be read: what is left at the end is a problem too.

Scalars stay text until a field says what it wants. That is where YAML 1.1 goes wrong: ``on``, ``no``, ``012``,
``1_000``, ``1:30`` and ``1.10`` are not the strings they look like, and programs disagree on what they are. So where a
string is wanted, an unquoted scalar that some YAML reader takes for something else is a problem, unless it is a plain
decimal number and the source's own rules turn those into strings (``number_as_text``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeAlias

from parma_policy.generate.problems import Problems

_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_TRUE_FALSE: Final = {"true": True, "false": False}
_YAML_11: Final = re.compile(
    r"~|null|true|false|yes|no|on|off|y|n"  # null and booleans, in any case
    r"|[-+]?\.(?:inf|nan)"
    r"|[-+]?(?:0b[01_]+|0o?[0-7_]*|0x[0-9a-f_]+|[0-9][0-9_]*(?::[0-5]?[0-9])*)"  # integers, base 60 included
    r"|[-+]?(?:[0-9][0-9_]*(?::[0-5]?[0-9])*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:e[-+]?[0-9]+)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
    r"|<<|=",
    re.ASCII | re.IGNORECASE,
)
"""Unquoted scalars that readers of YAML 1.1 or 1.2 may take for something else than a string."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written."""

    text: str
    plain: bool = False
    """Written without quotes, so that its type is guessed from its looks."""
    null: bool = False
    filled_in: bool = False
    """A variable was put in: text to whoever wants text, and a number or flag to whoever wants that."""

    @property
    def guessed(self) -> bool:
        """Whether it may be a number or a flag."""
        return self.plain or self.filled_in


Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


class Node:
    """A value with its place."""

    __slots__ = ("line", "path", "problems", "value")

    def __init__(self, value: Value, path: str, line: int, problems: Problems) -> None:
        self.value: Final = value
        self.path: Final = path
        self.line: Final = line
        self.problems: Final = problems

    @property
    def is_null(self) -> bool:
        """Written as null, or with nothing behind the colon."""
        return isinstance(self.value, Scalar) and self.value.null

    def problem(self, message: str, *, hint: str = "") -> None:
        """Notes a problem with this value."""
        self.problems.add(self.path, message, hint=hint, line=self.line)

    def text(self, *, number_as_text: bool = False) -> str:
        """A string; empty after a problem."""
        value = self.value
        if not isinstance(value, Scalar) or value.null:
            self.problem(f"found {self._kind()} where a string belongs")
            return ""
        as_number = number_as_text and _DECIMAL.fullmatch(value.text)
        if value.plain and not as_number and _YAML_11.fullmatch(value.text):
            message = f"{value.text} without quotes is not a string to every reader of YAML"
            self.problem(message, hint=f'write "{value.text}" if it is meant as one')
            return ""
        if "\0" in value.text:
            self.problem("a string with a NUL character")
            return ""
        return value.text

    def flag(self) -> bool:
        """true or false; false after a problem. YAML 1.1's other words for them are not taken."""
        value = self.value
        if isinstance(value, Scalar) and value.guessed and value.text in _TRUE_FALSE:
            return _TRUE_FALSE[value.text]
        self.problem(f"found {self._kind()} where true or false belongs")
        return False

    def integer(self, low: int, high: int) -> int:
        """A decimal whole number; ``low`` after a problem. Octal and other notations are not taken."""
        value = self.value
        if isinstance(value, Scalar) and value.guessed and _DECIMAL.fullmatch(value.text):
            number = int(value.text)
            if low <= number <= high:
                return number
            self.problem(f"{number} is out of range, {low} to {high}")
            return low
        self.problem(f"found {self._kind()} where a decimal whole number belongs")
        return low

    def items(self) -> list[Node]:
        """The elements of a list; none after a problem."""
        if isinstance(self.value, list):
            return self.value
        if not self.is_null:
            self.problem(f"found {self._kind()} where a list belongs")
        return []

    def texts(self, *, number_as_text: bool = False) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(item.text(number_as_text=number_as_text) for item in self.items())

    def members(self) -> dict[str, Node]:
        """The members of a mapping whose keys are the user's own."""
        if isinstance(self.value, dict):
            return self.value
        if not self.is_null:
            self.problem(f"found {self._kind()} where a mapping belongs")
        return {}

    def fields(self) -> Fields:
        """The members of a mapping whose keys have a meaning."""
        return Fields(self)

    def _kind(self) -> str:
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case Scalar(null=True):
                return "nothing"
            case Scalar():
                return f"{self.value.text[:40]!r}"


class Fields:
    """The members of a mapping, each to be read once. As a context manager it notes those that were not."""

    def __init__(self, node: Node) -> None:
        self.node: Final = node
        self._members: Final = node.members()
        self._known: Final[set[str]] = set()

    def __enter__(self) -> Fields:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> None:
        """Notes every member that nobody asked for."""
        for name, node in self._members.items():
            if name not in self._known:
                close = difflib.get_close_matches(name, self._known, 1, 0.8)
                node.problem("not understood", hint=f"did you mean {close[0]!r}?" if close else "")

    def get(self, name: str) -> Node | None:
        """The member, or None where it is absent or null."""
        self._known.add(name)
        node = self._members.get(name)
        return None if node is None or node.is_null else node

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        node = self.get(name)
        return default if node is None else node.text()

    def needed_text(self, name: str) -> str:
        """A string that must be there."""
        node = self.get(name)
        if node is None:
            self.node.problem(f"{name!r} is missing")
            return ""
        return node.text()

    def maybe_text(self, name: str) -> str | None:
        """A string, or None where it is absent."""
        node = self.get(name)
        return None if node is None else node.text()

    def flag(self, name: str, *, default: bool = False) -> bool:
        """true or false."""
        node = self.get(name)
        return default if node is None else node.flag()

    def maybe_flag(self, name: str) -> bool | None:
        """true or false, or None where it is absent."""
        node = self.get(name)
        return None if node is None else node.flag()

    def maybe_integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number, or None where it is absent."""
        node = self.get(name)
        return None if node is None else node.integer(low, high)

    def maybe_texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None where it is absent."""
        node = self.get(name)
        return None if node is None else node.texts()

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; none where it is absent."""
        return self.maybe_texts(name) or ()

    def items(self, name: str) -> list[Node]:
        """The elements of a list; none where it is absent."""
        node = self.get(name)
        return [] if node is None else node.items()

    def members(self, name: str) -> dict[str, Node]:
        """A mapping with the user's own keys; empty where it is absent."""
        node = self.get(name)
        return {} if node is None else node.members()

    def child(self, name: str) -> Fields | None:
        """A mapping whose keys have a meaning, or None where it is absent."""
        node = self.get(name)
        return None if node is None else node.fields()

    def ignore(self, *names: str) -> None:
        """Members that say nothing about what a container may do."""
        self._known.update(names)

    def refuse(self, name: str, why: str, *, hint: str = "", harmless: tuple[str, ...] = ()) -> None:
        """A member that cannot be honoured, unless it is absent, empty, false, or one of the ``harmless`` words."""
        node = self.get(name)
        if node is None or node.value in ([], {}):
            return
        if isinstance(node.value, Scalar) and node.value.text in ("", "false", *harmless):
            return
        node.problem(why, hint=hint)

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        return iter(self._members.items())
