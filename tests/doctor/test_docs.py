# SPDX-License-Identifier: Apache-2.0
"""The tables in the documentation are those of the code."""

from __future__ import annotations

from pathlib import Path

from devtool import docs
from parma_shim.config import Config
from parma_shim.doctor import cli


def test_tables_are_current() -> None:
    text = docs.HARDWARE.read_text()
    assert docs.with_tables(text) == text, "run ./dev docs"


def test_every_check_is_documented(tmp_path: Path) -> None:
    text = docs.HARDWARE.read_text()
    names = [check.id for check in cli.examine(Config(tee="snp", image_dir=tmp_path), root=tmp_path)]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_a_table_that_is_not_current_is_noticed() -> None:
    text = docs.HARDWARE.read_text().replace("fw_error=11", "fw_error=12")
    assert docs.with_tables(text) != text
