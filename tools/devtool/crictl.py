# SPDX-License-Identifier: Apache-2.0
"""``crictl``, the command line of Kubernetes' container runtime interface, built with Go where that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from devtool import paths
from parma_wire.errors import Unavailable

MODULE: Final = "sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0"
_SECONDS: Final = 900.0


def ensure() -> Path:
    """``.dev/go/crictl``. Raises Unavailable where it cannot be built."""
    program = paths.GO / "crictl"
    if program.exists():
        return program
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise Unavailable("there is no Go compiler", hint="apt-get install golang")
    environment = {**os.environ, "GOBIN": str(paths.GO), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    paths.GO.mkdir(parents=True, exist_ok=True)
    command = [go, "install", MODULE]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, cwd=paths.GO)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(command)} takes longer than {_SECONDS:.0f} s") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise Unavailable(f"{' '.join(command)} failed: {last[0]}")
    return program
