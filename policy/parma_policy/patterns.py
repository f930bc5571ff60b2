# SPDX-License-Identifier: Apache-2.0
"""Text patterns of a policy: exact strings and RE2 expressions.

An expression is anchored as text: ``^`` is put in front and ``$`` behind where they are not there already. So
``A=1|B=2`` means ``^A=1|B=2$``, which lets ``A=1junk`` pass. That is what the reference enforcer does, and policies
in use were written against it; ``lint`` points such patterns out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import re2

Strategy = Literal["string", "re2", "unknown"]
"""``unknown`` matches nothing; only comparison with the reference enforcer makes such patterns."""

MAX_PROGRAM_BYTES: Final = 1 << 20
"""Memory that RE2 may use for one compiled expression, in bytes."""


class _Compiled(Protocol):
    def search(self, text: str) -> object | None: ...


def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = MAX_PROGRAM_BYTES
    options.log_errors = False
    options.never_capture = True
    return options


_OPTIONS: Final = _options()


def anchored(expression: str) -> str:
    """The expression with ``^`` and ``$`` added as text where missing."""
    start = "" if expression.startswith("^") else "^"
    end = "" if expression.endswith("$") else "$"
    return f"{start}{expression}{end}"


_ANY_BYTE: Final = re.compile(r"(?s)(?:[^\\]|\\Q.*?(?:\\E|\Z)|\\[^CQ])*\\C")
"""``\\C``, which stands for any byte: the one thing that this RE2 knows and the reference's refuses."""


def compile_anchored(expression: str) -> _Compiled | None:
    """The compiled, anchored expression; None where RE2 refuses it (such a rule then never matches)."""
    if _ANY_BYTE.match(expression):
        return None
    try:
        compiled: _Compiled = re2.compile(anchored(expression), _OPTIONS)
    except re2.error:
        return None
    return compiled


@dataclass(frozen=True, slots=True)
class TextPattern:
    """One ``pattern``/``strategy`` pair. Immutable; equal when text and strategy are."""

    text: str
    strategy: Strategy = "string"
    _compiled: _Compiled | None = field(default=None, compare=False, repr=False)

    @property
    def valid(self) -> bool:
        """False for an expression that RE2 refuses: it matches nothing."""
        return self.strategy != "re2" or self._compiled is not None

    @property
    def usable(self) -> bool:
        """Whether it is an expression that compiled."""
        return self._compiled is not None

    def matches(self, text: str) -> bool:
        """Whether ``text`` is accepted."""
        if self.strategy == "string":
            return text == self.text
        return self._compiled is not None and self._compiled.search(text) is not None


@functools.lru_cache(maxsize=64)
def expression_set(expressions: tuple[str, ...]) -> Callable[[str], bool] | None:
    """A function that says whether any of the expressions, all valid, accepts a text, in one pass over it.

    A yes is certain. A no is not: such a set gives up where it would need much memory. None where it cannot be built.
    """
    options = re2.Options()
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    for expression in expressions:
        found.Add(anchored(expression))
    try:
        found.Compile()
    except re2.error:
        return None
    return lambda text: bool(found.Match(text))


class PatternCache:
    """Builds patterns and shares the compiled expressions of one policy: generators repeat them in every container."""

    def __init__(self) -> None:
        self._patterns: dict[str, TextPattern] = {}

    def make(self, text: str, strategy: Strategy) -> TextPattern:
        """A pattern; compiled expressions are shared."""
        if strategy != "re2":
            return TextPattern(text, strategy)
        pattern = self._patterns.get(text)
        if pattern is None:
            pattern = TextPattern(text, "re2", compile_anchored(text))
            self._patterns[text] = pattern
        return pattern

    def __len__(self) -> int:
        """Number of different expressions."""
        return len(self._patterns)
