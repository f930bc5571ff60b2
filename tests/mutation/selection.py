# SPDX-License-Identifier: Apache-2.0
"""Which tests could notice a fault, and in which order they are asked."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.mutation.baseline import Baseline, Line
from tests.mutation.mutants import Mutant

BUDGET: Final = 4.0
"""Seconds of processor time for one fault: what the tests that this allows do not notice counts as survived."""


class Selection:
    """The tests of one area."""

    def __init__(self, baseline: Baseline, tests: set[str], modules: Iterable[Path]) -> None:
        self.seconds = {test: baseline.seconds[test] for test in tests if test not in baseline.skipped}
        self._tests_of: defaultdict[Line, set[str]] = defaultdict(set)
        for test in self.seconds:
            for line in baseline.lines[test]:
                self._tests_of[line].add(test)
        self._at_import = baseline.at_import
        self._uses = _Uses(modules)
        self._kills: defaultdict[tuple[Path, str], Counter[str]] = defaultdict(Counter)

    def needs_import(self, mutant: Mutant) -> bool:
        """Whether the fault shows only in a module that is imported with it."""
        return not mutant.scope or (str(mutant.path), mutant.scope) in self._at_import

    def tests(self, mutant: Mutant) -> list[str]:
        """At most for `BUDGET`; none: no test runs it."""
        able = self._able(mutant)
        kills, near = self._kills[mutant.path, mutant.scope], self._kills[mutant.path, ""]
        ordered = sorted(able, key=lambda test: (-kills[test], -near[test], self.seconds[test], test))
        return list(_affordable(ordered, self.seconds))

    def killed_by(self, mutant: Mutant, test: str) -> None:
        """Is asked first from now on."""
        self._kills[mutant.path, mutant.scope][test] += 1
        if mutant.scope:
            self._kills[mutant.path, ""][test] += 1

    def _able(self, mutant: Mutant) -> set[str]:
        if not self.needs_import(mutant):
            return self._running(str(mutant.path), mutant.line, mutant.end)
        of_names = {test for line in self._uses.of(mutant) for test in self._tests_of.get(line, ())}
        return of_names or self._running(str(mutant.path), 0, 1_000_000) or set(self.seconds)

    def _running(self, path: str, first: int, last: int) -> set[str]:
        lines = (line for line in self._tests_of if line[0] == path and first <= line[1] <= last)
        return {test for line in lines for test in self._tests_of[line]}


class _Uses:
    """Where in functions the things that a module defines are used."""

    def __init__(self, modules: Iterable[Path]) -> None:
        self._top: dict[Path, list[ast.stmt]] = {path: ast.parse(path.read_bytes()).body for path in modules}

    def of(self, mutant: Mutant) -> set[Line]:
        """The definition's own lines, and those of all that names it, directly or by way of other definitions."""
        statement = next((s for s in self._top[mutant.path] if s.lineno <= mutant.end <= (s.end_lineno or 0)), None)
        lines = {(str(mutant.path), number) for number in _numbers(statement)} if statement else set()
        names = known = _defined(statement) if statement else set()
        while names:
            more = set()
            for path, top in self._top.items():
                for other in top:
                    found = {node.lineno for node in ast.walk(other) if _named(node) & names}  # type: ignore[attr-defined]
                    lines |= {(str(path), number) for number in found}
                    if found and not isinstance(other, (ast.FunctionDef, ast.ClassDef)):
                        more |= _defined(other)
            names = more - known
            known = known | more
        return lines


def _numbers(statement: ast.stmt) -> range:
    return range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)


def _defined(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _named(node: ast.AST) -> set[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
    return set()


def _affordable(tests: Iterable[str], seconds: dict[str, float]) -> Iterator[str]:
    total = 0.0
    for test in tests:
        total += seconds[test]
        if total > BUDGET:
            return
        yield test
