# SPDX-License-Identifier: Apache-2.0
"""The table of attacks is complete, and so are the tests: no row without one, no test without a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile import table

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


def test_R64_what_the_hosts_acpi_tables_can_do_is_documented() -> None:
    text = (table.ROOT / "SECURITY.md").read_text()
    assert "ACPI" in text
    assert "AML" in text
