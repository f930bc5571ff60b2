# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a source: collected, so that the user sees all of it at once.

Nothing that a source says is dropped in silence. A field that is not understood, or that the runtime cannot honour, is
a problem with the field's path; each can be set aside by naming that path, and then the field counts as not written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parma_wire.errors import Malformed, NotFound

MAX_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that cannot be taken."""

    path: str
    """``spec.containers[0].image``, behind ``Pod/name:`` where the source has several documents."""
    message: str
    hint: str = ""
    line: int = 0
    """In the source, from 1; 0 where that is not known."""

    def __str__(self) -> str:
        place = f" (line {self.line})" if self.line else ""
        hint = f" (hint: {self.hint})" if self.hint else ""
        return f"{self.path}{place}: {self.message}{hint}"


class SourceError(Malformed):
    """A source has fields that cannot be taken."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        lines = [f"  {problem}" for problem in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            lines.append(f"  and {len(problems) - MAX_SHOWN} more")
        count = "one field" if len(problems) == 1 else f"{len(problems)} fields"
        hint = "\nchange the source, or set fields aside one by one with --ignore-field PATH"
        super().__init__(f"{source}: {count} cannot be taken:\n" + "\n".join(lines) + hint)


class Problems:
    """Collects the problems of one source."""

    def __init__(self, source: str, ignored: Iterable[str] = ()) -> None:
        self.source = source
        self._ignored = dict.fromkeys(ignored, False)
        self._found: dict[tuple[str, str], Problem] = {}

    def add(self, path: str, message: str, *, hint: str = "", line: int = 0) -> None:
        """Notes a problem, unless its path was set aside."""
        for name in (path, path.partition(":")[2]):
            if name in self._ignored:
                self._ignored[name] = True
                return
        self._found.setdefault((path, message), Problem(path, message, hint, line))

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Paths that were named and had a problem, as named."""
        return tuple(path for path, used in self._ignored.items() if used)

    def check(self) -> None:
        """Raises SourceError for what was found, and NotFound for a path set aside that had no problem."""
        if self._found:
            raise SourceError(self.source, tuple(self._found.values()))
        unused = [path for path, used in self._ignored.items() if not used]
        if unused:
            message = f"--ignore-field {unused[0]}: {self.source} has no problem there"
            raise NotFound(message, hint="name the path exactly as the error message did, or leave the option out")
