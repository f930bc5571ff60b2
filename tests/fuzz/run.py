# SPDX-License-Identifier: Apache-2.0
"""``./dev fuzz [TARGET] [--minutes N]``: coverage-guided fuzzing with Atheris.

Each target runs in a process of its own. What was found interesting is kept in ``.dev/fuzz/TARGET`` and is where the
next run starts; an input that breaks the target is written to ``tests/fuzz/crashes/TARGET``, from where every test run
replays it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz import harness

CORPUS: Final = Path(__file__).resolve().parents[2] / ".dev" / "fuzz"
_OURS: Final = ["parma_guest", "parma_policy", "parma_snp", "parma_wire", "parma_cose", "ttrpc"]
_MAX_LENGTH: Final = 16_384
_SECONDS_FOR_ONE: Final = 20


def main(arguments: list[str]) -> int:
    """Exit code 0 when no target broke."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=harness.names(), help="all in turn, if none is given")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.in_process:
        fuzz(options.target, options.minutes)
        return 0
    broken = []
    for name in [options.target] if options.target else harness.names():
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--minutes", str(options.minutes), "--in-process"]
        if subprocess.run(command).returncode:
            broken.append(name)
    print(f"fuzz: broken: {', '.join(broken)}" if broken else "fuzz: nothing found")
    return 1 if broken else 0


def fuzz(name: str, minutes: float) -> None:
    """Runs one target until the time is over or it breaks; does not return, libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=_OURS):
        target = harness.load(name)
    corpus, crashes = CORPUS / name, harness.CRASHES / name
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={int(minutes * 60)}", f"-timeout={_SECONDS_FOR_ONE}", f"-max_len={_MAX_LENGTH}"]
    atheris.Setup([name, *limits, f"-artifact_prefix={crashes}/", "-print_final_stats=1", str(corpus)], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
