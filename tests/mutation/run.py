# SPDX-License-Identifier: Apache-2.0
"""``./dev mutate [AREA...]``: small faults in the code that decides, one at a time: does a test fail?

Areas: the framework, the policy reader, the report verifier, the enforcer's dispatch. A fault that no test notices
must stand in tests/mutation/survivors.toml with the reason. Exit code 1 when one does not, when there was no time for
all the tests that could notice one, or when a test fails without any fault.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.mutation import survivors
from tests.mutation.areas import AREAS
from tests.mutation.engine import OPTIONS, Audience, Engine, Job, Result
from tests.mutation.mutants import Mutant, find
from tests.mutation.survivors import Key
from tests.mutation.trial import Outcome

_SEED: Final = 1
_NOTICED: Final = (Outcome.KILLED, Outcome.TIMED_OUT)
_UNNOTICED: Final = (Outcome.SURVIVED, Outcome.UNDECIDED)


class Score(NamedTuple):
    """Of one area."""

    area: str
    mutants: int
    killed: int
    timed_out: int
    survived: int
    undecided: int
    """There was no time for all the tests that could notice it."""

    @classmethod
    def of(cls, job: Job, results: Mapping[int, Result]) -> Score:
        """Counts the outcomes."""
        counts = Counter(result.outcome for result in results.values())
        return cls(job.name, len(results), *(counts[outcome] for outcome in (*_NOTICED, *_UNNOTICED)))

    def __str__(self) -> str:
        """A row of the table."""
        share = 100 * (self.killed + self.timed_out) / self.mutants if self.mutants else 100.0
        counts = f"{self.mutants:8}{self.killed:8}{self.timed_out:11}{self.survived:10}{self.undecided:11}"
        return f"{self.area:12}{counts}{share:9.1f} %"


HEADER: Final = f"{'area':12}{'faults':>8}{'killed':>8}{'timed out':>11}{'survived':>10}{'undecided':>11}{'score':>11}"


def main(arguments: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="./dev mutate", description=__doc__)
    parser.add_argument("area", nargs="*", metavar="AREA", help=f"of {', '.join(AREAS)}; all, if none is given")
    parser.add_argument("--sample", type=int, metavar="N", help="only N faults of each area, always the same ones")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose FILE:FUNCTION has TEXT in it")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="only what no test noticed in the run of this output"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    options = parser.parse_args(arguments)
    if unknown := set(options.area) - set(AREAS):
        parser.error(f"no such area: {', '.join(sorted(unknown))}; there are {', '.join(AREAS)}")
    return run([_job(name, options) for name in options.area or AREAS], options.jobs)


def run(jobs: Sequence[Job], lanes: int, listed: Path = survivors.FILE) -> int:
    """All trials, and the report. The working directory is the root of the jobs' areas."""
    reasons = survivors.load(listed)
    started = time.monotonic()

    engine = Engine(jobs, lanes, _Console(reasons))
    code = pytest.main(OPTIONS, plugins=[engine])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return 2
    return _report(engine, reasons, time.monotonic() - started)


def _job(name: str, options: argparse.Namespace) -> Job:
    area = AREAS[name]
    mutants = [mutant for path in area.modules() for mutant in find(path)]
    chosen = [mutant for mutant in mutants if options.only in f"{mutant.path}:{mutant.scope}"]
    if options.again:
        again = survivors.printed(options.again)
        chosen = [mutant for mutant in chosen if Key.of(mutant) in again]
    random.Random(_SEED).shuffle(chosen)  # noqa: S311  # so that what is known on the way is a fair sample
    return Job(name, area, chosen[: options.sample])


def _report(engine: Engine, reasons: dict[Key, str], seconds: float) -> int:
    tried, survived, existing = [], [], []
    rows = []
    undecided = 0
    for job, results in zip(engine.jobs, engine.results, strict=True):
        rows.append(Score.of(job, results))
        for number, mutant in enumerate(job.mutants):
            tried.append(Key.of(mutant, job.area.root))
            if results[number].outcome not in _NOTICED:
                survived.append(Key.of(mutant, job.area.root))
        undecided += rows[-1].undecided
        existing += [Key.of(mutant, job.area.root) for path in job.area.modules() for mutant in find(path)]
    comparison = survivors.compare(tried, survived, reasons, existing)
    for key in comparison.noticed:
        print(f"\nno longer survives:\n{key}", end="")
    print(f"\n{HEADER}", *rows, sep="\n")
    print(f"{seconds / 60:.0f} minutes; {len(survived) - len(comparison.unlisted)} of the survivors have a reason")
    if comparison.unlisted:
        print(f"mutate: {len(comparison.unlisted)} faults that no test noticed are not in {survivors.FILE.name}")
    if undecided:
        print(f"mutate: {undecided} of them are undecided: there was no time for all tests that run them")
    if comparison.noticed:
        print(f"mutate: {len(comparison.noticed)} entries of {survivors.FILE.name} can go")
    if engine.failed:
        print("mutate: left out, as they fail without any fault:", *sorted(engine.failed), sep="\n  ")
    return 1 if comparison.unlisted or comparison.noticed or engine.failed else 0


class _Console(Audience):
    """Prints what no test noticed and has no reason, each area's row, and a line now and then."""

    def __init__(self, reasons: Mapping[Key, str]) -> None:
        self._reasons = reasons
        self._last = 0.0

    def has_reason(self, job: Job, mutant: Mutant) -> bool:
        return Key.of(mutant, job.area.root) in self._reasons

    def say(self, text: str) -> None:
        if time.monotonic() - self._last > 20:
            self._last = time.monotonic()
            print(f"mutate: {text}", file=sys.stderr, flush=True)

    def unnoticed(self, job: Job, mutant: Mutant, outcome: Outcome) -> None:
        if not self.has_reason(job, mutant):
            kind = "undecided" if outcome is Outcome.UNDECIDED else "survivor"
            print(f"\n[[{kind}]]\n{Key.of(mutant, job.area.root)}", end="", flush=True)

    def done(self, job: Job, results: Mapping[int, Result]) -> None:
        print(f"mutate: {HEADER}\nmutate: {Score.of(job, results)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
