# SPDX-License-Identifier: Apache-2.0
"""The tool that judges the other tests, on a project of one function."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation import survivors
from tests.mutation.areas import AREAS, ROOT, Area
from tests.mutation.baseline import Baseline
from tests.mutation.mutants import Mutant, find
from tests.mutation.selection import Budget, Choice, Selection, Words
from tests.mutation.survivors import Comparison, Key

_MODULE = """\
LIMIT = 3
NOTE = "nobody"

def allowed(number: int) -> bool:
    \"\"\"Small numbers.\"\"\"
    if number < 0:
        raise ValueError("a negative number")
    return number < LIMIT

def countdown(number: int) -> int:
    while number > 0:
        number -= 1
    return number

def unused(number: int) -> int:
    return number + 7
"""
_LATE = """\
def doubled(number: int) -> int:
    return number + number
"""
_TESTS = """\
import pytest
from tiny import allowed, countdown

def test_numbers_below_the_limit_are_allowed():
    assert [number for number in range(6) if allowed(number)] == [0, 1, 2]

def test_negative_numbers_are_refused():
    with pytest.raises(ValueError):
        allowed(-1)

def test_countdown_ends_at_zero():
    assert countdown(3) == 0

def test_what_is_imported_late_counts_too():
    from late import doubled
    assert doubled(3) == 6
"""
_FIXTURE = """\
import pytest

@pytest.fixture
def three():
    return 3
"""
_TESTS_WITH_FIXTURE = """\
from tiny import countdown

def test_countdown_of_a_fixture_ends_at_zero(three):
    assert countdown(three) == 0
"""
_SLOW = """\
def one():
    return 1

def two():
    return 2
"""
_SLOW_TESTS = """\
from slow import one, two

def test_one_is_one():
    assert one() == 1

def test_two_is_two():
    assert two() == 2

def test_a_verification_takes_less_than_ten_milliseconds():
    assert False, "a busy machine"
"""
_RUN = """\
import sys
from pathlib import Path
from tests.mutation.areas import Area
from tests.mutation.engine import Job
from tests.mutation.mutants import Mutant, find
from tests.mutation.run import run
from tests.mutation.selection import Budget
root = Path.cwd()
area = Area(("tiny.py", "late.py"), ("checks/test_*.py",), root)
mutants = [mutant for path in area.modules() for mutant in find(path)]
slow = Area(("slow.py",), ("checks/test_slow.py",), root)
one, two = ([mutant for mutant in find(root / "slow.py") if mutant.scope == name] for name in ("one", "two"))
late, never = Budget(first=0), Budget(first=0, again=0)
jobs = [Job("tiny", area, mutants), Job("late", slow, one, late), Job("never", slow, two, never)]
sys.exit(run(jobs, 1, root / "survivors.toml"))
"""
_NEVER_CALLED = Key("tiny.py", "unused", "return number + 7", "return None")
_ALSO_NOT = [
    Key("tiny.py", "unused", "return number + 7", "return number - 7"),
    Key("tiny.py", "unused", "return number + 7", "return number + 8"),
]
_ALSO_NOT_WHEN_IMPORTED = Key("tiny.py", "", "NOTE = 'nobody'", "NOTE = 'nobodyXX'")
_UNDECIDED = Key("slow.py", "two", "return 2", "return 3")
_QUICK, _LONG = "test_slow.py::test_one_is_one", "test_slow.py::test_two_is_two"
_NOTICED = Key("tiny.py", "allowed", "if number < 0:", "if False:")


def entry(key: Key) -> str:
    return f'[[survivor]]\n{key}reason = "nobody calls it"\n'


def texts(path: Path) -> set[tuple[str, str, str]]:
    return {(mutant.scope, mutant.was, mutant.becomes) for mutant in find(path)}


def test_faults_are_noticed_unlisted_survivors_are_shown_and_entries_that_do_not_survive(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(_MODULE)
    (tmp_path / "late.py").write_text(_LATE)
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "test_tiny.py").write_text(_TESTS)
    (tmp_path / "slow.py").write_text(_SLOW)
    (checks / "test_slow.py").write_text(_SLOW_TESTS)
    (checks / "conftest.py").write_text(_FIXTURE)
    for name in ("first", "second"):
        (checks / f"test_{name}.py").write_text(_TESTS_WITH_FIXTURE)
    (tmp_path / "survivors.toml").write_text(entry(_NEVER_CALLED) + entry(_NOTICED))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers = e2e: none\n")
    command, environment = [sys.executable, "-c", _RUN], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    # What is imported (LIMIT), what is called, a loop without end twice, a module that only a test imports; nobody
    # calls the rest, or looks at the note. Two files of tests have a fixture from the same conftest.py.
    assert re.search(r"^tiny +20 +\d+ +\d+ +4 +0 +80\.0 %$", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count("[[survivor]]") == 3
    assert all(f"[[survivor]]\n{key}" in done.stdout for key in (*_ALSO_NOT, _ALSO_NOT_WHEN_IMPORTED))
    assert f"no longer survives:\n{_NOTICED}" in done.stdout
    assert "fail without any fault" not in done.stdout, "what measures time is not run"
    # What the first tests do not notice is tried with the others, and what there is no time for has not survived.
    assert re.search(r"^late +1 +1 +0 +0 +0 +100\.0 %$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^never +1 +0 +0 +0 +1 +0\.0 %$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^mutate: late +1 +1 +0 +0 +0 +100\.0 %$", done.stderr, re.MULTILINE), "as soon as it is known"
    assert f"[[undecided]]\n{_UNDECIDED}" in done.stdout
    assert "4 faults that no test noticed are not in survivors.toml\nmutate: 1 of them are undecided" in done.stdout


def test_tests_that_speak_of_what_is_at_fault_are_told_from_others(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(_MODULE)
    (tmp_path / "test_tiny.py").write_text(_TESTS)
    tests = [f"test_tiny.py::{name}" for name in re.findall(r"def (test_\w+)", _TESTS)]
    words = Words(Area(("tiny.py",), ("test_tiny.py",), tmp_path), tests)
    fault = next(mutant for mutant in find(tmp_path / "tiny.py") if mutant.was == "return number < LIMIT")
    *_, nearest = sorted(tests, key=lambda test: words.shared(fault, test))
    assert nearest == "test_tiny.py::test_numbers_below_the_limit_are_allowed"
    assert words.shared(fault, "test_tiny.py::test_countdown_ends_at_zero") == 0


@pytest.fixture
def slow_area(tmp_path: Path) -> Area:
    (tmp_path / "slow.py").write_text(_SLOW)
    (tmp_path / "test_slow.py").write_text(_SLOW_TESTS)
    return Area(("slow.py",), ("test_slow.py",), tmp_path)


def two_tests_of_one(area: Area, budget: Budget) -> tuple[Selection, Mutant]:
    """A fault in ``one``, which both tests run: for 3 seconds, and for 4."""
    fault = next(mutant for mutant in find(area.root / "slow.py") if mutant.scope == "one")
    seconds = {_QUICK: 3.0, _LONG: 4.0}
    lines = {test: {(str(fault.path), fault.line)} for test in seconds}
    return Selection(Baseline(lines=lines, seconds=seconds), area, budget), fault


@pytest.mark.parametrize(
    ("budget", "choice"),
    [
        (Budget(first=7), Choice([_QUICK, _LONG], [], complete=True)),
        (Budget(first=6, again=4), Choice([_QUICK], [_LONG], complete=True)),
        (Budget(first=6, again=3), Choice([_QUICK], [], complete=False)),
        (Budget(first=2, again=6), Choice([], [_QUICK], complete=False)),
    ],
)
def test_tests_that_there_is_no_time_for_are_asked_again_or_known_to_be_left_out(
    slow_area: Area, budget: Budget, choice: Choice
) -> None:
    selection, fault = two_tests_of_one(slow_area, budget)
    assert selection.tests(fault) == choice


def test_tests_that_noticed_a_fault_of_the_same_function_are_asked_first(slow_area: Area) -> None:
    selection, fault = two_tests_of_one(slow_area, Budget(first=4))
    assert selection.tests(fault).first == [_QUICK]
    selection.killed_by(fault, _LONG)
    assert selection.tests(fault).first == [_LONG]


def test_a_complete_list_is_neither_short_nor_long() -> None:
    tried = [_NEVER_CALLED, _NOTICED]
    assert survivors.compare(tried, [_NEVER_CALLED], [_NEVER_CALLED], tried) == Comparison([], [])


def test_an_entry_whose_code_is_gone_is_told_and_one_that_was_not_tried_is_not() -> None:
    gone, elsewhere = Key("tiny.py", "lost", "return 1", "return 2"), Key("other.py", "x", "a", "b")
    found = survivors.compare([_NOTICED], [], [gone, elsewhere, *_ALSO_NOT], [_NOTICED, *_ALSO_NOT])
    assert found == Comparison([], [gone])


def test_an_entry_without_a_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text(f"[[survivor]]\n{_NOTICED}")
    with pytest.raises(ValueError, match="no reason"):
        survivors.load(tmp_path / "list.toml")


@pytest.mark.parametrize("text", ["a 'quoted' \\d", "both ' and \"", "plain"])
def test_an_entry_reads_as_it_was_written(tmp_path: Path, text: str) -> None:
    key = Key("tiny.py", "scope", text, "pass", 2)
    (tmp_path / "list.toml").write_text(entry(key))
    assert survivors.load(tmp_path / "list.toml") == {key: "nobody calls it"}


def test_what_a_run_has_printed_can_be_tried_again(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text(
        f"mutate: 1 of 2\n\n[[survivor]]\n{_NOTICED}mutate: 2 of 2\n\n[[undecided]]\n{_NEVER_CALLED}\narea\n"
    )
    assert survivors.printed(output) == {_NOTICED, _NEVER_CALLED}
    output.write_text("all is well\n")
    assert survivors.printed(output) == set()


def test_conditions_and_their_parts_checks_and_bounds_are_faulted(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a, b):\n    if a and not b:\n        raise KeyError(a)\n    return a[1:] <= b\n")
    assert texts(path) == {
        ("f", "if a and (not b):", "if True:"),
        ("f", "if a and (not b):", "if False:"),
        ("f", "if a and (not b):", "if a:"),
        ("f", "if a and (not b):", "if not b:"),
        ("f", "if a and (not b):", "if a and b:"),
        ("f", "return a[1:] <= b", "return None"),
        ("f", "return a[1:] <= b", "return a[1:] < b"),
        ("f", "return a[1:] <= b", "return a[2:] <= b"),
    }


def test_decorators_defaults_and_tables_are_faults_of_the_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("TABLE = {'a': 1}\n@guarded\ndef f(a: 'T' = 1):\n    'Text.'\n    say('a prose text')\n")
    assert texts(path) == {
        ("", "TABLE = {'a': 1}", "TABLE = {'aXX': 1}"),
        ("", "TABLE = {'a': 1}", "TABLE = {'a': 2}"),
        ("", "@guarded def f(a: 'T'=1):", "def f(a: 'T'=1):"),
        ("", "a: 'T'=1", "a: 'T'=2"),
        ("f", "say('a prose text')", "pass"),
    }


def test_what_an_error_tells_people_is_left_alone_and_its_kind_is_not(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a):\n    raise Refused('code', 'a text', expected='one', found=str(a))\n")
    raised = "raise Refused('code', 'a text', expected='one', found=str(a))"
    assert texts(path) == {("f", raised, "pass"), ("f", raised, raised.replace("code", "codeXX"))}


def test_equal_texts_of_one_function_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a):\n    if a:\n        g()\n    else:\n        g()\n")
    assert [(m.was, m.nth) for m in find(path) if m.becomes == "pass"] == [("g()", 1), ("g()", 2)]


@pytest.mark.parametrize("name", AREAS)
def test_areas_name_modules_and_tests_that_exist(name: str) -> None:
    area = AREAS[name]
    assert len(area.modules()) >= len(area.sources)
    assert area.test_files()


def test_the_list_names_faults_that_exist() -> None:
    modules = {path for area in AREAS.values() for path in area.modules()}
    assert {key.file for key in survivors.load()} <= {str(path.relative_to(ROOT)) for path in modules}
