# SPDX-License-Identifier: Apache-2.0
"""The faults that no test notices, each with the reason why that is right: ``survivors.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutation.areas import ROOT
from tests.mutation.mutants import Mutant

FILE: Final = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True, order=True)
class Key:
    """What identifies a fault while the code around it changes."""

    file: str
    scope: str
    was: str
    becomes: str
    nth: int = 1

    @classmethod
    def of(cls, mutant: Mutant, root: Path = ROOT) -> Key:
        """The key of a fault that was found."""
        return cls(str(mutant.path.relative_to(root)), mutant.scope, mutant.was, mutant.becomes, mutant.nth)

    def __str__(self) -> str:
        """As an entry of the list, without its reason."""
        nth = f"nth = {self.nth}\n" if self.nth > 1 else ""
        fields = f'file = "{self.file}"\nscope = "{self.scope}"\n'
        return f"{fields}was = {_quoted(self.was)}\nbecomes = {_quoted(self.becomes)}\n{nth}"


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def load(path: Path = FILE) -> dict[Key, str]:
    """The reasons. Raises ValueError for an entry without one, or one that is there twice."""
    reasons: dict[Key, str] = {}
    for entry in tomllib.loads(path.read_text()).get("survivor", []):
        reason = entry.pop("reason", "")
        key = Key(**entry)
        if not reason or key in reasons:
            raise ValueError(f"{path.name}: {'no reason' if not reason else 'there twice'}:\n{key}")
        reasons[key] = reason
    return reasons


def printed(path: Path) -> set[Key]:
    """The faults that no test noticed, as the output of an earlier run says."""
    texts = re.findall(
        r"^\[\[(?:survivor|undecided)\]\]\n(?:(?:file|scope|was|becomes|nth) = .*\n)+", path.read_text(), re.MULTILINE
    )
    entries = tomllib.loads("\n".join(texts))
    return {Key(**entry) for kind in ("survivor", "undecided") for entry in entries.get(kind, [])}


@dataclass(frozen=True)
class Comparison:
    """``unlisted``: a test is missing. ``noticed``: entries whose faults the tests do notice, or that are no more."""

    unlisted: list[Key]
    noticed: list[Key]


def compare(
    tried: Iterable[Key], survived: Iterable[Key], listed: Iterable[Key], existing: Iterable[Key]
) -> Comparison:
    """``tried`` are the faults of this run, ``existing`` all of its modules."""
    survivors, entries, all_tried = set(survived), set(listed), set(tried)
    known = set(existing)
    files = {key.file for key in known}
    gone = {key for key in entries if key.file in files and key not in known}
    return Comparison(sorted(survivors - entries), sorted(gone | ((entries & all_tried) - survivors)))
