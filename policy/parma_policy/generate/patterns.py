# SPDX-License-Identifier: Apache-2.0
"""RE2 expressions that generated policies use, and texts with parts that are known only when a container starts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ADDRESS: Final = r"[0-9a-f.:]+"
ADDRESSES: Final = r"[0-9a-f.:]+(,[0-9a-f.:]+)*"
NUMBER: Final = "[0-9]+"
UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DNS_NAME: Final = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"

_SPECIAL: Final = re.compile(r"[][\\.+*?()|{}^$]")


def quoted(text: str) -> str:
    """An expression that matches exactly this text.

    A dollar sign is written as ``[$]``: one at the very end, escaped or not, would be taken for the anchor that an
    expression already has.
    """
    return _SPECIAL.sub(lambda found: "[$]" if found[0] == "$" else f"\\{found[0]}", text)


@dataclass(frozen=True, slots=True)
class Text:
    """A text some of whose parts are only known as expressions: (part, is an expression)."""

    parts: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def of(cls, literal: str) -> Text:
        """A text that is known."""
        return cls(((literal, False),) if literal else ())

    @classmethod
    def matching(cls, expression: str) -> Text:
        """A text that is not known but for what it looks like."""
        return cls(((expression, True),))

    @classmethod
    def joined(cls, texts: Iterable[Text]) -> Text:
        """One behind the other."""
        return cls(tuple(part for text in texts for part in text.parts))

    @property
    def literal(self) -> str | None:
        """The text, or None where a part of it is not known."""
        if any(is_expression for _, is_expression in self.parts):
            return None
        return "".join(part for part, _ in self.parts)

    @property
    def expression(self) -> str:
        """An expression for it. An expression's alternatives do not escape into what stands beside it."""
        return "".join(f"({part})" if is_expression else quoted(part) for part, is_expression in self.parts)
