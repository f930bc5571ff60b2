# SPDX-License-Identifier: Apache-2.0
"""Which tests could notice a fault, and in which order they are asked."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutation.areas import Area
from tests.mutation.baseline import Baseline, Line
from tests.mutation.mutants import Mutant


class Budget(NamedTuple):
    """Seconds of processor time for the tests of one fault, as many as they need without one."""

    first: float = 2.0
    about: float = 1.0
    """Of these, those for tests that seem to be about what is at fault."""

    again: float = 90.0
    """For those that were left out, when the first have noticed nothing: more than the tests of an area need."""


class Choice(NamedTuple):
    """The tests that could notice a fault, in their order; none: no test runs it."""

    first: list[str]
    again: list[str]
    """To be asked when the first notice nothing."""

    complete: bool
    """Whether no test is left out of both."""


Definition = tuple[Path, str]
"""A name of a module."""


class Selection:
    """The tests of one area."""

    def __init__(self, baseline: Baseline, area: Area, budget: Budget) -> None:
        self._budget = budget
        files = set(area.test_files())
        tests = {test for test in baseline.seconds if test.partition("::")[0] in files}
        useless = baseline.skipped | baseline.failed
        self.seconds = {test: baseline.seconds[test] for test in tests - useless}
        self._tests_of: defaultdict[Line, set[str]] = defaultdict(set)
        for test in self.seconds:
            for line in baseline.lines[test]:
                self._tests_of[line].add(test)
        self._at_import = baseline.at_import
        sources = {str(path) for path in area.modules()}
        self.modules = sorted(name for file, name in baseline.modules.items() if file in sources)
        self._uses = Uses(area)
        self._tests_named: defaultdict[Definition, list[str]] = defaultdict(list)
        for test in self.seconds:
            self._tests_named[_definition(area, test)].append(test)
        self._kills: defaultdict[tuple[Path, str], Counter[str]] = defaultdict(Counter)
        self._words = Words(area, self.seconds)

    def needs_import(self, mutant: Mutant) -> bool:
        """Whether the fault shows only in a module that is imported with it."""
        return not mutant.scope or (str(mutant.path), mutant.scope) in self._at_import

    def tests(self, mutant: Mutant) -> Choice:
        """As many as the budget allows."""
        able, naming = self._able(mutant)
        kills, near = self._kills[mutant.path, mutant.scope], self._kills[mutant.path, ""]
        about = sorted(able, key=lambda test: (-self._words.shared(mutant, test), self.seconds[test], test))
        chosen = set(_affordable(about, self.seconds, self._budget.about))
        ordered = sorted(
            able,
            key=lambda test: (
                *(-kills[test], test not in chosen, -near[test], test not in naming),
                *(self.seconds[test], test),
            ),
        )
        first = list(_affordable(ordered, self.seconds, self._budget.first))
        rest = [test for test in ordered if test not in set(first)]
        again = list(_affordable(rest, self.seconds, self._budget.again))
        return Choice(first, again, len(again) == len(rest))

    def killed_by(self, mutant: Mutant, test: str) -> None:
        """Is asked first from now on."""
        self._kills[mutant.path, mutant.scope][test] += 1
        if mutant.scope:
            self._kills[mutant.path, ""][test] += 1

    def _able(self, mutant: Mutant) -> tuple[set[str], set[str]]:
        """All that could notice, and those of them that name what is at fault."""
        if not self.needs_import(mutant):
            return self._running(str(mutant.path), mutant.line, mutant.end), set()
        lines, definitions = self._uses.of(mutant)
        running = {test for line in lines for test in self._tests_of.get(line, ())}
        naming = {test for definition in definitions for test in self._tests_named.get(definition, ())}
        return running | naming or self._running(str(mutant.path), 0, 1_000_000) or set(self.seconds), naming

    def _running(self, path: str, first: int, last: int) -> set[str]:
        lines = (line for line in self._tests_of if line[0] == path and first <= line[1] <= last)
        return {test for line in lines for test in self._tests_of[line]}


class Uses:
    """Where the things that a module defines are used."""

    def __init__(self, area: Area) -> None:
        self._sources = set(area.modules())
        paths = [*self._sources, *(area.root / file for file in area.test_files())]
        self._top: dict[Path, list[ast.stmt]] = {path: ast.parse(path.read_bytes()).body for path in paths}
        self._names = {statement: _named(statement) for top in self._top.values() for statement in top}

    def of(self, mutant: Mutant) -> tuple[set[Line], set[Definition]]:
        """Lines of modules, the definition's own among them, and functions of tests that name what is at fault.

        Directly or by way of other definitions; by way of functions of modules, whose lines tests are known to run,
        is not followed.
        """
        statement = next((s for s in self._top[mutant.path] if s.lineno <= mutant.end <= (s.end_lineno or 0)), None)
        if statement is None:
            return set(), set()
        last = (statement.end_lineno or statement.lineno) + 1
        lines = {(str(mutant.path), number) for number in range(statement.lineno, last)}
        definitions: set[Definition] = set()
        names = known = _defined(statement)
        while names:
            more = set()
            for path, top in self._top.items():
                for other in (other for other in top if self._names[other].keys() & names):
                    if path in self._sources:
                        lines |= {(str(path), line) for name in names for line in self._names[other].get(name, ())}
                    else:
                        definitions |= {(path, name) for name in _defined(other)}
                    if path not in self._sources or not isinstance(other, (ast.FunctionDef, ast.ClassDef)):
                        more |= _defined(other)
            names = more - known
            known = known | more
        return lines, definitions


class Words:
    """What tests and faults have in common, judged by their words: the rarer a word, the more it says."""

    def __init__(self, area: Area, tests: Iterable[str]) -> None:
        functions: dict[Definition, frozenset[str]] = {}
        for file in area.test_files():
            lines = (area.root / file).read_text().splitlines()
            for statement in ast.parse("\n".join(lines)).body:
                if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                    first = min([statement.lineno, *(item.lineno for item in statement.decorator_list)])
                    text = "\n".join(lines[first - 1 : statement.end_lineno])
                    functions[area.root / file, statement.name] = _words(text)
        self._count = Counter(word for words in functions.values() for word in words)
        self._of = {test: functions.get(_definition(area, test), frozenset()) for test in tests}

    def shared(self, mutant: Mutant, test: str) -> float:
        """How much that is."""
        words = _words(f"{mutant.scope} {mutant.was}") & self._of[test]
        return sum(1 / self._count[word] for word in sorted(words))


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in re.findall(r"[A-Za-z]{2,}|[0-9]+", text))


def _definition(area: Area, test: str) -> Definition:
    path, _, name = test.partition("::")
    return area.root / path, name.partition("::")[0].partition("[")[0]


def _defined(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _named(statement: ast.stmt) -> dict[str, set[int]]:
    """The names in it, with their lines."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found[name].add(node.lineno)
    return found


def _affordable(tests: Iterable[str], seconds: dict[str, float], limit: float) -> Iterator[str]:
    """In their order, without those that take longer than what is left."""
    for test in tests:
        if seconds[test] <= limit:
            limit -= seconds[test]
            yield test
