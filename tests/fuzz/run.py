# SPDX-License-Identifier: Apache-2.0
"""``./dev fuzz [TARGET] [--minutes N]``: coverage-guided fuzzing with Atheris.

Each target runs in a process of its own. What was found interesting is kept in ``.dev/fuzz/TARGET`` and is where the
next run starts; an input that breaks the target is written to ``tests/fuzz/crashes/TARGET``, from where every test run
replays it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz import harness

ROOT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = ROOT / ".dev" / "fuzz"
_OURS: Final = ["parma_guest", "parma_policy", "parma_shim", "parma_snp", "parma_wire", "parma_cose", "ttrpc"]
_MAX_LENGTH: Final = 16_384
_SECONDS_FOR_ONE: Final = 20
_MEBIBYTES: Final = 1024
_EXECUTIONS: Final = re.compile(rb"stat::number_of_executed_units:\s*([0-9]+)|^Done ([0-9]+) runs", re.MULTILINE)
_TAIL: Final = 6000


class Outcome(NamedTuple):
    """Of one search."""

    name: str
    status: int
    """How its process ended: 0 is well."""

    seconds: float
    cpu_seconds: float
    executions: int
    said: str
    """The end of what the fuzzer printed: with the input, if it found one."""

    @property
    def broken(self) -> bool:
        """Whether something was found."""
        return self.status != 0

    def __str__(self) -> str:
        verdict = f"BROKEN ({self.status})" if self.broken else "nothing found"
        times = f"{self.seconds / 60:.1f} min, {self.cpu_seconds / 60:.1f} min of CPU"
        return f"fuzz: {self.name}: {verdict} in {times}, {self.executions:,} inputs"


def main(arguments: list[str]) -> int:
    """Exit code 0 when no target broke."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=harness.names(), help="all in turn, if none is given")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at once (default: 1)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help=argparse.SUPPRESS)
    parser.add_argument("--crashes", type=Path, default=harness.CRASHES, help=argparse.SUPPRESS)
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.in_process:
        fuzz(options.target, options.minutes, options.corpus, options.crashes)
        return 0
    names = [options.target] if options.target else harness.names()
    print(f"fuzz: what the fuzzer says is in {options.corpus}/*.log", flush=True)
    broken = []
    for outcome in campaign(names, options.minutes, options.jobs, options.corpus, options.crashes):
        print(outcome, flush=True)
        if outcome.broken:
            broken.append(outcome.name)
            print(outcome.said)
    print(f"fuzz: broken: {', '.join(broken)}" if broken else "fuzz: nothing found")
    return 1 if broken else 0


def campaign(names: Sequence[str], minutes: float, jobs: int, corpus: Path, crashes: Path) -> Iterator[Outcome]:
    """Searches each target for so long, ``jobs`` of them at a time."""
    corpus.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> Outcome:
        places = ["--corpus", str(corpus), "--crashes", str(crashes)]
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--minutes", str(minutes), "--in-process", *places]
        return search(name, command, corpus / f"{name}.log")

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, names)


def search(name: str, command: Sequence[str], log: Path) -> Outcome:
    """Runs the fuzzer's process to its end."""
    start = time.monotonic()
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_bytes()
    found = _EXECUTIONS.findall(said)
    return Outcome(
        name,
        status=child.returncode,
        seconds=time.monotonic() - start,
        cpu_seconds=used.ru_utime + used.ru_stime,
        executions=int(b"".join(found[-1])) if found else 0,
        said=said[-_TAIL:].decode(errors="replace"),
    )


def fuzz(name: str, minutes: float, corpora: Path, artifacts: Path) -> None:
    """Runs one target until the time is over or it breaks; does not return, libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=_OURS):
        target = harness.load(name)
    corpus, crashes = corpora / name, artifacts / name
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except (
            BaseException
        ):  # the name is libFuzzer's, who has no time to write it when the interpreter goes down hard
            (crashes / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    limits = [
        f"-max_total_time={max(1, int(minutes * 60))}",
        f"-timeout={_SECONDS_FOR_ONE}",
        f"-rss_limit_mb={_MEBIBYTES}",
        f"-max_len={_MAX_LENGTH}",
    ]
    atheris.Setup([name, *limits, f"-artifact_prefix={crashes}/", "-print_final_stats=1", str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
