# SPDX-License-Identifier: Apache-2.0
"""``./dev``: stage one runs on Debian's bare Python and makes the virtual environment; stage two runs in it.

Only the standard library is imported here, as nothing else need be there yet.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HELP = """\
usage: ./dev TASK [ARGUMENTS]

  demo            run a container in its own VM under a policy, then show three refusals
  test [PYTEST]   run the whole test suite, end-to-end tests in real VMs included
  bench           measure against runc's shim on the same containerd
  image DIR       build the guest image into DIR; --variant rego: with an engine for policies with rules of their own
  vectors DIR     replay a folder of recorded cases; closes with 'N passed, N failed'
  fuzz [TARGET]   coverage-guided fuzzing of everything that reads untrusted bytes; --minutes N for each target
  mutate [AREA]   put small faults into the code that decides, and see whether a test notices; --sample N: only some
  soak            many lives of containers and VMs with kill -9 in between, then compares inventories; --short, --help
  hostile [ROW]   attack the guest as a hostile host would, and print the table of attacks and outcomes
  docs            rewrite the tables in docs/ that are made from the code
  lint            ruff and mypy over everything
  setup           only the set-up that the other tasks do by themselves
  shell-env       print the variables with which to run the tools by hand

Everything is installed below .dev/; removing that folder undoes it. Needs Debian 12 or 13 and root.
"""

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".dev" / "venv"
LOCK = ROOT / "requirements" / "dev.lock"


def ensure_virtual_environment() -> None:
    """Makes ``.dev/venv`` from the lock file, and installs the checkout into it; each only when it has changed."""
    pip: list[str | Path] = [VENV / "bin" / "python", "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if _changed(LOCK):
        print("dev: virtual environment: installing the locked tools", file=sys.stderr, flush=True)
        VENV.parent.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-I", "-m", "venv", "--clear", VENV], check=True)
        subprocess.run([*pip, "install", "--require-hashes", "-r", LOCK], check=True)
        _remember(LOCK)
    project = ROOT / "pyproject.toml"
    if _changed(project):
        subprocess.run([*pip, "install", "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
        _remember(project)


def _changed(path: Path) -> bool:
    stamp = VENV / f"{path.name}.sha256"
    return not stamp.is_file() or stamp.read_text() != hashlib.sha256(path.read_bytes()).hexdigest()


def _remember(path: Path) -> None:
    (VENV / f"{path.name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(HELP, end="")
        return
    ensure_virtual_environment()
    os.environ["PYTHONPATH"] = str(ROOT / "tools")
    python = str(VENV / "bin" / "python")
    os.execv(python, [python, "-m", "devtool.tasks", *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
