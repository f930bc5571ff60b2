# SPDX-License-Identifier: Apache-2.0
"""Programs that tests and bench use and that are built with Go, where that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from devtool import paths
from parma_wire.errors import Unavailable

_SECONDS: Final = 900.0


def build(*arguments: str | Path, cwd: Path = paths.GO) -> None:
    """``go`` with these arguments, for static programs that go to ``.dev/go``. Raises Unavailable where it fails."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise Unavailable("there is no Go compiler", hint="apt-get install golang")
    environment = {**os.environ, "GOBIN": str(paths.GO), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    paths.GO.mkdir(parents=True, exist_ok=True)
    command = [go, *map(str, arguments)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, cwd=cwd)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(command)} takes longer than {_SECONDS:.0f} s") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise Unavailable(f"{' '.join(command)} failed: {last[0]}")
