# SPDX-License-Identifier: Apache-2.0
"""The table of attacks is complete, and so are the tests: no row without one, no test without a row."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from parma_wire.errors import NotFound
from tests.hostile import pages, run, table

ROWS = table.load()
HERE = Path(__file__).parent
_NAMED = re.compile(r"test_(R\d\d)_")


def test_R53_every_row_is_there_and_has_tests_or_a_reason() -> None:
    assert [row.id for row in ROWS] == [f"R{number:02}" for number in range(1, table.COUNT + 1)]
    for row in ROWS:
        assert bool(row.tests) != bool(row.not_applicable), row.id
        assert row.section in table.SECTIONS, row.id
        for text in (row.attack, row.outcome):
            assert text.endswith("."), row.id


@pytest.mark.parametrize("row", [row for row in ROWS if row.tests], ids=lambda row: row.id)
def test_every_test_of_a_row_exists(row: table.Row) -> None:
    assert [test for test in row.tests if not table.exists(test)] == []


def test_every_named_test_is_in_its_row() -> None:
    listed = {test: row.id for row in ROWS for test in row.tests}
    for path in sorted(HERE.glob("test_*.py")):
        file = f"tests/hostile/{path.name}"
        for name in table.tests_in(file):
            found = _NAMED.match(name)
            if found:
                assert listed.get(f"{file}::{name}") == found[1], f"{name} is not in row {found[1]} of rows.toml"


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_pages_are_those_that_the_tables_make(name: str) -> None:
    assert (pages.DOCS / name).read_text() == pages.PAGES[name](), "run: ./dev docs"


def numbers(text: str) -> dict[str, list[int]]:
    """The table's rows by their first cell."""
    rows = (line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ") and "---" not in line)
    return {row[0].strip(): [int(cell) for cell in row[1:] if cell.strip().isdigit()] for row in rows if len(row) > 2}


def test_the_size_of_the_trusted_base_is_about_what_the_page_says() -> None:
    try:
        actual = numbers(pages.trusted_base())
    except NotFound as error:
        pytest.skip(str(error))
    written = numbers(pages.TRUSTED_BASE.read_text())
    assert set(written) == set(actual), "run: ./dev docs"
    for part, values in actual.items():
        assert written[part] == [pytest.approx(value, rel=0.15, abs=4) for value in values], f"{part}: run ./dev docs"


def test_the_command_prints_every_row_and_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert [line[:3] for line in printed.splitlines() if line.startswith("R")] == [row.id for row in ROWS]
    assert run.main(["r53", "--list"]) == 0
    assert capsys.readouterr().out.startswith("R53\n")


def test_the_result_of_a_row_is_that_of_its_worst_test() -> None:
    row = table.Row("R99", "paths", "", "a.", "b.", ("f::x", "f::y"))

    def result(**outcomes: str) -> str:
        results = run.Results()
        for name, outcome in outcomes.items():
            report = types.SimpleNamespace(when="call", outcome=outcome, nodeid=f"f::{name}[1]")
            results.pytest_runtest_logreport(report)  # type: ignore[arg-type]
        return results.of(row)

    assert result(x="passed", y="passed") == "passed"
    assert result(x="failed", y="passed") == "failed"
    assert result(x="skipped", y="passed") == "skipped"
    assert result(x="passed") == ""


def test_R64_what_the_hosts_acpi_tables_can_do_is_documented() -> None:
    text = (table.ROOT / "SECURITY.md").read_text()
    assert "ACPI" in text
    assert "AML" in text
