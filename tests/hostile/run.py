# SPDX-License-Identifier: Apache-2.0
"""``./dev hostile [ROW ...] [--list]``: carries out the attacks of the table and prints attack, outcome and result."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import Final

import pytest

from tests.hostile import table

_WORDS: Final = {"passed": "holds", "failed": "BROKEN", "skipped": "not tried here", "": "not tried"}
_WIDTH: Final = 116


class Results:
    """A pytest plugin: the worst outcome of each test function, whatever its parameters."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for set-up, call and teardown of each test."""
        if report.when == "call" or report.outcome != "passed":
            self._of.setdefault(report.nodeid.partition("[")[0], set()).add(report.outcome)

    def of(self, row: table.Row) -> str:
        """ "passed" when all of the row's tests have."""
        outcomes = [self._of.get(test, {""}) for test in row.tests]
        for outcome in ("failed", "", "skipped"):
            if any(outcome in found for found in outcomes):
                return outcome
        return "passed"


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when no row that was tried is broken."""
    parser = argparse.ArgumentParser(prog="./dev hostile", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="R01 to R80; all, if none is given")
    parser.add_argument("--list", action="store_true", help="print the table and try nothing")
    options = parser.parse_args(arguments)
    wanted = {name.upper() for name in options.rows}
    rows = [row for row in table.load() if not wanted or row.id in wanted]
    if unknown := wanted - {row.id for row in rows}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    results = Results()
    if not options.list:
        tests = dict.fromkeys(test for row in rows for test in row.tests)
        pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *tests], plugins=[results])
        print()
    broken = 0
    for row in rows:
        result = "does not apply" if row.not_applicable else _WORDS[results.of(row)]
        broken += result == _WORDS["failed"]
        show(row, "" if options.list and row.tests else result)
    if not options.list:
        print(f"hostile: {len(rows)} rows, {broken} broken")
    return 1 if broken else 0


def show(row: table.Row, result: str) -> None:
    """One row: attack, arrow, outcome."""
    print(f"{row.id}  {result}".rstrip())
    for text in (row.attack, f"-> {(row.not_applicable and 'does not apply: ' + row.not_applicable) or row.outcome}"):
        print(textwrap.fill(text, _WIDTH, initial_indent="     ", subsequent_indent="     "))
    if row.rest:
        print(textwrap.fill(f"left: {row.rest}", _WIDTH, initial_indent="     ", subsequent_indent="     "))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
