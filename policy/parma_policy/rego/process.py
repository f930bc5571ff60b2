# SPDX-License-Identifier: Apache-2.0
"""The engine as an ordinary child, for the host's tools. A guest starts it by other means: there is one reaper."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from parma_policy.rego.link import Process, Spawn


class _Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def program(path: Path, *arguments: str) -> Spawn:
    """Starts the program with an empty environment."""
    command: Sequence[str | Path] = [path, *arguments]

    def spawn(stdin: int, stdout: int) -> Process:
        return _Child(subprocess.Popen(command, stdin=stdin, stdout=stdout, env={}, close_fds=True))

    return spawn
