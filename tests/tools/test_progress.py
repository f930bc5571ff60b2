# SPDX-License-Identifier: Apache-2.0
"""The demo says how far a boot is."""

from __future__ import annotations

from pathlib import Path

from devtool.progress import BootProgress, shown
from parma_wire.limits import READY_LINE


def console(state: Path, name: str, text: str = "") -> Path:
    path = state / name / "console.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_boot_is_followed_from_start_to_ready(tmp_path: Path) -> None:
    console(tmp_path, "older", READY_LINE)
    progress = BootProgress(tmp_path)
    assert progress.look(100) == []
    console(tmp_path, "new", "\x1b[2J")
    assert progress.look(101) == ["a virtual machine starts"]
    assert progress.look(105) == []
    assert progress.look(106.5) == ["it boots: 6 s"]
    assert progress.look(107) == []
    console(tmp_path, "new", f"\x1b[2J{READY_LINE}\r\n")
    (line,) = progress.look(112)
    assert "booted after 11 s" in line
    assert progress.look(130) == []


def test_a_machine_that_goes_away_is_no_error(tmp_path: Path) -> None:
    progress = BootProgress(tmp_path / "not-there-yet")
    assert progress.look(1) == []
    (tmp_path / "not-there-yet").mkdir()
    path = console(tmp_path / "not-there-yet", "vm")
    assert progress.look(2) == ["a virtual machine starts"]
    path.unlink()
    assert progress.look(8) == ["it boots: 6 s"]


def test_nothing_is_said_where_no_machine_starts(tmp_path: Path) -> None:
    said: list[str] = []
    with shown(tmp_path, said.append):
        pass
    assert said == []
