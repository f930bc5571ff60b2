# SPDX-License-Identifier: Apache-2.0
"""``crictl``, the command line of Kubernetes' container runtime interface, built with Go where that is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from devtool import golang, paths
from parma_wire.errors import Unavailable

MODULE: Final = "sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0"
PROGRAM: Final = paths.GO / "crictl"
_SECONDS: Final = 200
"""For one call, the boot of a pod included."""


def ensure() -> Path:
    """``.dev/go/crictl``. Raises Unavailable where it cannot be built."""
    if not PROGRAM.exists():
        golang.build("install", MODULE)
    return PROGRAM


class Crictl:
    """For the containerd that listens at ``address``, a unix socket."""

    def __init__(self, address: Path) -> None:
        self._command = [str(PROGRAM), "--timeout", f"{_SECONDS}s", "--runtime-endpoint", f"unix://{address}"]

    def __call__(self, *arguments: str | Path) -> str:
        """Its output. Raises Unavailable with what it says when it fails."""
        command = [*self._command, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS + 40)
        if done.returncode != 0:
            raise Unavailable(f"crictl {' '.join(map(str, arguments))} failed: {done.stderr.strip()}")
        return done.stdout.strip()
