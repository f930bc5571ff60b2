# SPDX-License-Identifier: Apache-2.0
"""The harness of the searches, with programs in the place of the fuzzer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz import harness
from tests.fuzz.searches import ROOT, Searches, how_to_keep

_WELL = "print('fuzz: searches after 1.5 s', 'Done 12 runs in 3 second(s)', sep='\\n')"
_BROKEN = f"import sys; {_WELL}; sys.stdout.flush(); sys.exit('Base64: Zm9v')"


def programs(texts: Mapping[str, str], folder: Path, *, jobs: int) -> Searches:
    return Searches([*texts], jobs, folder / "logs", lambda name: [sys.executable, "-c", texts[name], str(folder)])


def test_each_target_has_an_outcome_of_its_own(tmp_path: Path) -> None:
    with programs({"one": _WELL, "two": _BROKEN, "three": _WELL}, tmp_path, jobs=1) as searches:
        outcomes = {name: searches.outcome(name) for name in ("three", "two", "one")}
    assert [name for name, outcome in outcomes.items() if outcome.broken] == ["two"]
    assert all(outcome.name == name for name, outcome in outcomes.items())


def test_a_broken_target_is_noticed_with_what_broke_it(tmp_path: Path) -> None:
    with programs({"one": _BROKEN}, tmp_path, jobs=1) as searches:
        outcome = searches.outcome("one")
    assert outcome.broken
    assert outcome.executions == 12
    assert outcome.starting == 1.5
    assert "Base64: Zm9v" in outcome.said
    assert "BROKEN" in str(outcome)


def test_a_fuzzer_that_dies_of_a_signal_is_a_broken_target(tmp_path: Path) -> None:
    with programs({"one": "import os; os.kill(os.getpid(), 11)"}, tmp_path, jobs=1) as searches:
        outcome = searches.outcome("one")
    assert (outcome.broken, outcome.status, outcome.executions) == (True, -11, 0)


def test_so_many_are_searched_at_a_time_and_no_more(tmp_path: Path) -> None:
    """The first two wait for each other; the third needs one of them to be over."""
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    meet = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
mode = {mode!r}
first, second = [(folder / name).open("w" if name == mode else "r") for name in ("one", "two")]
(folder / "over").touch()
"""
    after = "import sys; from pathlib import Path; sys.exit(not (Path(sys.argv[1]) / 'over').exists())"
    texts = {"one": meet.format(mode="one"), "two": meet.format(mode="two"), "three": after}
    with programs(texts, tmp_path, jobs=2) as searches:
        assert [searches.outcome(name).status for name in texts] == [0, 0, 0]


def test_who_leaves_early_ends_what_runs_and_begins_nothing_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    endless = """
import os, signal, sys
from pathlib import Path
Path(sys.argv[1], "pid").write_text(str(os.getpid()))
while True:
    signal.pause()
"""
    with programs({"one": endless, "two": _WELL}, tmp_path, jobs=1) as searches:
        pid = int((tmp_path / "pid").read_text())
        handle = os.pidfd_open(pid)
    try:
        with_its_log, *others = (tmp_path / "logs").iterdir()
        assert (with_its_log.name, others) == ("one.log", [])
        assert searches.outcome("one").status == -9
    finally:
        os.close(handle)


def test_what_was_found_is_printed_as_commands_that_keep_it(tmp_path: Path) -> None:
    data = bytes(range(256))
    found = tmp_path / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
    found.write_bytes(data)
    commands = how_to_keep("relay", [found], tmp_path / "cases").splitlines()[1:]
    subprocess.run(["sh", "-ec", "\n".join(commands)], check=True)
    assert (tmp_path / "cases" / "relay" / found.name).read_bytes() == data
    assert how_to_keep("relay", [], tmp_path) == ""


def test_only_the_targets_that_a_test_run_has_chosen_are_searched(tmp_path: Path) -> None:
    chosen = harness.names()[:2]
    tests = ["tests/fuzz", "-k", f"a_search_breaks_nothing and ({' or '.join(chosen)})"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}", *tests]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PARMA_FUZZ_SECONDS": "1"}, capture_output=True)
    logs = [*(tmp_path / "own").glob("corpus0/*.log")]
    assert sorted(log.stem for log in logs) == chosen
