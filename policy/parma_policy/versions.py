# SPDX-License-Identifier: Apache-2.0
"""Semantic versions (semver.org 2.0.0), as far as policies use them: parsing and precedence.

Read as Rego's own ``semver`` functions read them: a ``v`` in front and leading zeros are let pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

_NUMBER: Final = r"[0-9]{1,18}"
_SEMVER: Final = re.compile(
    rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_MAX_LENGTH: Final = 64


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version; comparable. Build metadata does not take part in the order and is dropped."""

    core: tuple[int, int, int]
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version written in ``text``, or None where it is not one."""
        match = _SEMVER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            return None
        major, minor, patch, prerelease = match.groups()
        return cls((int(major), int(minor), int(patch)), tuple(prerelease.split(".")) if prerelease else ())

    def _order(self) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
        # A release follows its prereleases; numeric identifiers precede words and compare as numbers.
        identifiers = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in self.prerelease)
        return self.core, not self.prerelease, identifiers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._order() == other._order()

    def __lt__(self, other: Version) -> bool:
        return self._order() < other._order()

    def __hash__(self) -> int:
        return hash(self._order())

    def __str__(self) -> str:
        text = ".".join(map(str, self.core))
        return f"{text}-{'.'.join(self.prerelease)}" if self.prerelease else text


def version(text: str) -> Version:
    """A version known to be valid, for constants."""
    parsed = Version.parse(text)
    if parsed is None:
        raise ValueError(text)
    return parsed


API_VERSION: Final = version("0.12.0")
"""Of the list of enforcement points: a policy's ``api_version`` says which of them its author knew."""

FRAMEWORK_VERSION: Final = version("0.5.0")
"""Of the meaning of a policy's data: a policy with a newer ``framework_version`` has no usable containers."""
