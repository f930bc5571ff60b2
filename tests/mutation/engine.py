# SPDX-License-Identifier: Apache-2.0
"""Runs the trials, as a plugin of a pytest that collects nothing by itself.

A process that has collected all tests and run none is forked for each fault, which is put into the functions in place;
what works while modules are imported (constants, tables, defaults, decorators) is tried in a fork of a process that has
imported none of ours. Hypothesis draws the same examples each time and shrinks nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Final, NamedTuple, Protocol

import pytest

from tests.mutation.areas import TIMED, Area
from tests.mutation.baseline import Baseline, Clock, Recorder
from tests.mutation.mutants import Mutant
from tests.mutation.selection import Budget, Selection
from tests.mutation.trial import (
    FirstFailure,
    Outcome,
    Progress,
    attempt,
    be_silent,
    forget_results,
    import_all,
    in_own_folder,
    live_functions,
    make_shared_fixtures,
    put_before_import,
    put_in_place,
    run_tests,
    use_own_folder,
)

OPTIONS: Final = ["-s", "-qq", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-m", "not e2e"]
_EXAMPLES: Final = 25
"""Of Hypothesis, for each test."""
_THIRD_PARTY: Final = ("cryptography", "google", "re2", "yaml", "cbor2", "_pytest", "hypothesis")
"""Imported once, before the forks that import ours."""


Work = Callable[[list[int], int], None]


class Job(NamedTuple):
    """The faults of one area."""

    name: str
    area: Area
    mutants: Sequence[Mutant]
    budget: Budget = Budget()


class Result(NamedTuple):
    """``test`` is the one that noticed, if any."""

    outcome: Outcome
    test: str


class Audience(Protocol):
    """Who is told how it goes."""

    def has_reason(self, job: Job, mutant: Mutant) -> bool:
        """Whether it is known why no test notices the fault: it is not tried for long."""

    def say(self, text: str) -> None:
        """How far the trials are."""

    def unnoticed(self, job: Job, mutant: Mutant, outcome: Outcome) -> None:
        """As soon as that is known."""

    def done(self, job: Job, results: Mapping[int, Result]) -> None:
        """All of one job."""


class Engine:
    """The plugin. ``results`` are those of the jobs' mutants, in their order."""

    def __init__(self, jobs: Sequence[Job], lanes: int, audience: Audience) -> None:
        self.jobs = jobs
        self._lanes = lanes
        self._audience = audience
        self.results: list[dict[int, Result]] = [{} for _ in jobs]
        self.failed: set[str] = set()

    def pytest_collection(self) -> bool:
        """Not in this process: it stays free of our modules."""
        from hypothesis import (
            HealthCheck,
            Phase,
            settings,
        )  # which is a plugin, too, and must not be imported before pytest begins

        quick = settings(
            settings.default,
            derandomize=True,
            database=None,
            max_examples=_EXAMPLES,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],  # says something of the machine, not of the fault
        )
        settings.register_profile("mutation", quick)
        settings.load_profile("mutation")
        return True

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that want many examples get as few as the others, and those that measure time are not run."""
        from hypothesis import settings

        items[:] = [item for item in items if item.name not in TIMED]
        for item in items:
            function = getattr(getattr(item, "obj", None), "__func__", getattr(item, "obj", None))
            wanted = getattr(function, "_hypothesis_internal_use_settings", None)
            if isinstance(wanted, settings) and wanted.max_examples > _EXAMPLES:
                quick = settings(wanted, max_examples=_EXAMPLES)
                setattr(function, "_hypothesis_internal_use_settings", quick)  # noqa: B010

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of running tests."""
        files = sorted({file for job in self.jobs for file in job.area.test_files()})
        if any(job.area.rsa_keys for job in self.jobs):
            from tests.mutation import keys

            keys.prepare()
        baseline, modules = self._baseline(session, files)
        self.failed = baseline.failed
        for name in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        for number, job in enumerate(self.jobs):
            self._run(session, job, baseline, self.results[number])
        return True

    def _baseline(self, session: pytest.Session, files: list[str]) -> tuple[Baseline, list[str]]:
        def run() -> None:
            be_silent()
            recorder = Recorder({path for job in self.jobs for path in job.area.modules()})
            session.config.pluginmanager.register(recorder)
            recorder.collect(session, files)
            _run_all(session, following=session.items[:1])
            recorder.note_modules()
            session.config.pluginmanager.unregister(recorder)
            session.config.pluginmanager.register(clock := Clock())
            forget_results()
            _run_all(session, following=[])
            recorder.baseline.seconds = clock.seconds
            modules = sorted(name for name in sys.modules if name.partition(".")[0] in _THIRD_PARTY)
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump((recorder.baseline, modules), pipe)

        started = time.monotonic()
        reader, writer = os.pipe()
        child = _fork(run)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            found: tuple[Baseline, list[str]] = pickle.load(pipe)  # noqa: S301  # from our own child
        os.waitpid(child, 0)
        self._audience.say(f"{len(found[0].seconds)} tests without a fault: {time.monotonic() - started:.0f} s")
        return found

    def _run(self, session: pytest.Session, job: Job, baseline: Baseline, results: dict[int, Result]) -> None:
        selection = Selection(baseline, job.area, job.budget)
        later = {number for number, mutant in enumerate(job.mutants) if selection.needs_import(mutant)}
        lane = _Lane(session, job, selection, self._audience.has_reason)
        results.update(self._in_lanes(lane, lane.in_place, [n for n in range(len(job.mutants)) if n not in later]))
        later |= {number for number, result in results.items() if result.outcome is Outcome.NOT_IN_PLACE}
        results.update(self._in_lanes(lane, lane.imported, sorted(later)))
        self._audience.done(job, results)

    def _in_lanes(self, lane: _Lane, work: Work, numbers: list[int]) -> Iterator[tuple[int, Result]]:
        reader, writer = os.pipe()
        shares = [numbers[index :: self._lanes] for index in range(self._lanes)]
        children = [_fork(partial(in_own_folder, partial(work, share, writer))) for share in shares if share]
        os.close(writer)
        with os.fdopen(reader) as pipe:
            unnoticed = 0
            for count, line in enumerate(pipe, 1):
                number, outcome, test = (int(word) for word in line.split())
                result = Result(list(Outcome)[outcome], lane.names[test] if test >= 0 else "")
                if result.outcome in {Outcome.SURVIVED, Outcome.UNDECIDED}:
                    unnoticed += 1
                    self._audience.unnoticed(lane.job, lane.job.mutants[number], result.outcome)
                yield number, result
                self._audience.say(
                    f"{lane.job.name}: {count} of {len(numbers)} {work.__name__}, {unnoticed} not noticed"
                )
        for child in children:
            _, status = os.waitpid(child, 0)
            if status:
                raise RuntimeError("the trials ended early: an error of the tool")


class _Lane:
    """What one process does: trials, one after the other. A line of numbers for each goes into a pipe."""

    def __init__(
        self, session: pytest.Session, job: Job, selection: Selection, has_reason: Callable[[Job, Mutant], bool]
    ) -> None:
        self.job = job
        self._has_reason = has_reason
        self.names = sorted(selection.seconds)
        self._session = session
        self._selection = selection
        self._progress = Progress()

    def in_place(self, numbers: list[int], pipe: int) -> None:
        """Faults in functions."""
        self._session.perform_collect(self.job.area.test_files())
        make_shared_fixtures(self._session.items, self._selection.seconds)
        self._session.config.pluginmanager.register(FirstFailure())
        items = {item.nodeid: item for item in self._session.items}
        import_all(self._selection.modules)  # or what only tests import on their way would stay as it is
        functions = live_functions(set(self.job.area.modules()))
        forget_results()
        gc.freeze()
        for number in numbers:
            mutant = self.job.mutants[number]

            def trial(tests: list[str], mutant: Mutant = mutant) -> Result:
                def run() -> bool:
                    seconds = [self._selection.seconds[test] for test in tests]
                    use_own_folder(self._session.config)
                    placed = put_in_place(mutant, functions)
                    if placed:
                        run_tests([items[test] for test in tests], seconds, self._progress)
                    return placed

                return self._trial(mutant, tests, run)

            self._tell(pipe, number, self._decide(mutant, trial))

    def imported(self, numbers: list[int], pipe: int) -> None:
        """Faults in what runs at import. Each file's tests are collected in a process of their own, with the fault.

        Not one file after the other in the same: pytest has the fixtures of a conftest.py for one collection only.
        """
        self._session.config.pluginmanager.register(FirstFailure())
        for number in numbers:
            mutant = self.job.mutants[number]
            self._tell(pipe, number, self._decide(mutant, partial(self._trial_by_file, mutant)))

    def _trial_by_file(self, mutant: Mutant, tests: list[str]) -> Result:
        by_file: defaultdict[str, list[str]] = defaultdict(list)
        for test in tests:
            by_file[test.partition("::")[0]].append(test)
        result = Result(Outcome.SURVIVED, "")
        for file, its_tests in by_file.items():

            def run(file: str = file, tests: list[str] = its_tests) -> bool:
                if not put_before_import(mutant):
                    return False
                self._session.perform_collect([file])
                items = {item.nodeid: item for item in self._session.items}
                seconds = [self._selection.seconds[test] for test in tests]
                run_tests([items[test] for test in tests], seconds, self._progress)
                return True

            result = self._trial(mutant, its_tests, run)
            if result.outcome is not Outcome.SURVIVED:
                break
        return result

    def _decide(self, mutant: Mutant, trial: Callable[[list[str]], Result]) -> Result:
        """What there was no time for at first is asked as well, before a fault is said to have survived."""
        choice = self._selection.tests(mutant)
        result = trial(choice.first)
        if result.outcome is not Outcome.SURVIVED or self._has_reason(self.job, mutant):
            return result
        result = trial(choice.again)
        if result.outcome is Outcome.SURVIVED and not choice.complete:
            return Result(Outcome.UNDECIDED, "")
        return result

    def _trial(self, mutant: Mutant, tests: list[str], run: Callable[[], bool]) -> Result:
        outcome = attempt(run, self._progress) if tests else Outcome.SURVIVED
        if not tests or outcome not in {Outcome.KILLED, Outcome.TIMED_OUT}:
            return Result(outcome, "")
        name = tests[self._progress.read()[0]]
        self._selection.killed_by(mutant, name)
        return Result(outcome, name)

    def _tell(self, pipe: int, number: int, result: Result) -> None:
        test = self.names.index(result.test) if result.test else -1
        os.write(pipe, f"{number} {list(Outcome).index(result.outcome)} {test}\n".encode())


def _run_all(session: pytest.Session, *, following: list[pytest.Item]) -> None:
    """What is made once for all tests is taken down with the last, unless another is ``following``."""
    for item, other in zip_longest(session.items, [*session.items[1:], *following]):
        item.ihook.pytest_runtest_protocol(item=item, nextitem=other)


def _fork(work: Callable[[], None]) -> int:
    """The child's number; it ends with its work, and with 1 after an error."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid
