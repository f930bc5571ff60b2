# SPDX-License-Identifier: Apache-2.0
"""What a refused policy text is refused with."""

from __future__ import annotations

from parma_wire.errors import Malformed


class PolicyTextError(Malformed):
    """A policy text that the strict reader refuses. ``line`` and ``column`` count from 1, columns in characters."""

    def __init__(self, message: str, *, line: int, column: int, expected: str, hint: str) -> None:
        super().__init__(f"policy line {line}, column {column}: {message}", expected=expected, hint=hint)
        self.line = line
        self.column = column


class Source:
    """A policy text, able to say where an offset in it is."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def error(self, offset: int, message: str, *, expected: str = "", hint: str = "") -> PolicyTextError:
        """The error for something at ``offset`` (characters from the start). To be raised by the caller."""
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return PolicyTextError(message, line=line, column=column, expected=expected, hint=hint)
