# SPDX-License-Identifier: Apache-2.0
"""``./dev fuzz [TARGET] [--minutes N]``: coverage-guided fuzzing with Atheris.

Each target runs in a process of its own. What was found interesting is kept in ``.dev/fuzz/TARGET`` and is where the
next run starts; an input that breaks the target is written to ``tests/fuzz/crashes/TARGET``, from where every test run
replays it.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import harness
from tests.fuzz.searches import ROOT, STARTED, Searches

CORPUS: Final = ROOT / ".dev" / "fuzz"
_OURS: Final = ["parma_guest", "parma_policy", "parma_shim", "parma_snp", "parma_wire", "parma_cose", "ttrpc"]
_MAX_LENGTH: Final = 16_384
_SECONDS_FOR_ONE: Final = 20
_MEBIBYTES: Final = 1024


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
    with searches(names, options.minutes, options.jobs, options.corpus, options.crashes) as begun:
        for outcome in map(begun.outcome, names):
            print(outcome, flush=True)
            if outcome.broken:
                broken.append(outcome.name)
                print(outcome.said)
    print(f"fuzz: broken: {', '.join(broken)}" if broken else "fuzz: nothing found")
    return 1 if broken else 0


def searches(names: Sequence[str], minutes: float, jobs: int, corpus: Path, crashes: Path) -> Searches:
    """Searches each target for so long, ``jobs`` of them at a time."""
    places = ["--corpus", str(corpus), "--crashes", str(crashes)]

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "tests.fuzz.run", name, "--minutes", str(minutes), "--in-process", *places]

    return Searches(names, jobs, corpus, command)


def fuzz(name: str, minutes: float, corpora: Path, artifacts: Path) -> None:
    """Runs one target until the time is over or it breaks; does not return, libFuzzer ends the process."""
    begun = time.monotonic()
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

    starting = time.monotonic() - begun
    print(STARTED.format(starting), flush=True)
    limits = [
        f"-max_total_time={max(1, int(minutes * 60)) + math.ceil(starting)}",  # libFuzzer's clock runs since the import
        f"-timeout={_SECONDS_FOR_ONE}",
        f"-rss_limit_mb={_MEBIBYTES}",
        f"-max_len={_MAX_LENGTH}",
    ]
    atheris.Setup([name, *limits, f"-artifact_prefix={crashes}/", "-print_final_stats=1", str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
