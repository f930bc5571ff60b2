# SPDX-License-Identifier: Apache-2.0
"""``crictl``, the command line of Kubernetes' container runtime interface, built with Go where that is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def forwarding(self, pod: str, *ports: int) -> Iterator[list[str]]:
        """While it runs ``port-forward``: where on this machine these ports of the pod are, as host:port."""
        command = [*self._command, "port-forward", pod, *(f":{port}" for port in ports)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None  # noqa: S101  # it is a pipe
                places: dict[int, str] = {}
                while len(places) < len(ports):  # "Forwarding from 127.0.0.1:34567 -> 8080", and again for [::1]
                    words = process.stdout.readline().split()
                    if words[:2] != ["Forwarding", "from"]:
                        raise Unavailable(f"crictl port-forward says {' '.join(words)!r}")
                    places.setdefault(int(words[4]), words[2])
                yield [places[port] for port in ports]
            finally:
                process.kill()
