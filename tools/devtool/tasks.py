# SPDX-License-Identifier: Apache-2.0
"""Stage two of ``./dev``: the tasks, run in the virtual environment."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devtool import paths, setup

CODE: Final = ("cose", "shim", "guest", "policy", "snp", "ttrpc", "wire", "tools", "tests")


def _run(*command: str | Path) -> int:
    return subprocess.run(command, cwd=paths.ROOT).returncode


def task_setup(_: list[str]) -> int:
    setup.ensure_all()
    return 0


def task_test(arguments: list[str]) -> int:
    setup.ensure_for_tests()
    return _run(sys.executable, "-m", "pytest", *arguments)


def task_lint(_: list[str]) -> int:
    return _run(sys.executable, "-m", "pytest", "-q", "tests/test_linters.py")


def task_demo(_: list[str]) -> int:
    from devtool import demo

    return demo.main()


def task_bench(arguments: list[str]) -> int:
    from devtool import bench

    setup.ensure_all()
    return bench.main(arguments)


def task_image(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev image", description="Builds the guest image into a folder.")
    parser.add_argument("directory", type=os.path.abspath)
    parser.add_argument("--variant", choices=("default", "rego"), default="default")
    chosen = parser.parse_args(arguments)
    build: list[str | Path] = [paths.VENV / "bin/parma", "image", "build", "--workdir", paths.ARCHIVE]
    return _run(*build, "--variant", chosen.variant, chosen.directory)


def task_fuzz(arguments: list[str]) -> int:
    return _run(sys.executable, "-m", "tests.fuzz.run", *arguments)


def task_mutate(arguments: list[str]) -> int:
    return _run(sys.executable, "-m", "tests.mutation.run", *arguments)


def task_soak(arguments: list[str]) -> int:
    setup.ensure_all()
    return _run(sys.executable, "-m", "tests.soak.run", *arguments)


def task_hostile(arguments: list[str]) -> int:
    if "--list" not in arguments:
        setup.ensure_for_tests()
    return _run(sys.executable, "-m", "tests.hostile.run", *arguments)


def task_vectors(arguments: list[str]) -> int:
    from devtool import vectors

    return vectors.main(arguments)


def task_docs(_: list[str]) -> int:
    from devtool import docs

    return docs.main() or _run(sys.executable, "-m", "tests.hostile.pages")


def task_shell_env(_: list[str]) -> int:
    print(f"export PATH={paths.VENV}/bin:{paths.PREFIX}/bin:$PATH")
    return 0


TASKS: Final[dict[str, Callable[[list[str]], int]]] = {
    "setup": task_setup,
    "test": task_test,
    "lint": task_lint,
    "demo": task_demo,
    "bench": task_bench,
    "image": task_image,
    "vectors": task_vectors,
    "fuzz": task_fuzz,
    "mutate": task_mutate,
    "hostile": task_hostile,
    "soak": task_soak,
    "docs": task_docs,
    "shell-env": task_shell_env,
}


def main() -> int:
    task = TASKS.get(sys.argv[1])
    if task is None:
        print(f"dev: unknown task {sys.argv[1]!r}; expected one of {', '.join(TASKS)}", file=sys.stderr)
        return 2
    return task(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
