# SPDX-License-Identifier: Apache-2.0
"""Running a helper process from the daemon: one JSON document in, one out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from parma_shim.helpers.environment import helper_environment
from parma_shim.vm.spawn import Running
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable, from_code

_MAX_OUTPUT: Final = 4 * 1024 * 1024
_MAX_ERROR: Final = 2000

Document = dict[str, Any]


class Helper:
    """One helper process, for one exchange, which releases everything whether it succeeds or fails."""

    def __init__(self, python: Path, name: str, arguments: Sequence[str] = (), *, keep: Sequence[int] = ()) -> None:
        self._name: Final = name
        module = name if "." in name else f"parma_shim.helpers.{name}"
        argv = [str(python), "-m", module, *arguments]
        self._process: Final = Running(argv, environment=helper_environment(), keep=keep)

    def exchange(self, document: Mapping[str, object], *, deadline: float) -> Document:
        """Send the request, wait for the answer and the end.

        Raises the error that the helper reports, DeadlineExceeded, or Unavailable when it dies.
        """
        stdout = self.exchange_bytes(json.dumps(document).encode(), deadline=deadline)
        try:
            answer = json.loads(stdout)
        except ValueError as error:
            raise Malformed(f"the helper process {self._name} wrote nonsense") from error
        if not isinstance(answer, dict):
            raise Malformed(f"the helper process {self._name} wrote no JSON object")
        failure = answer.get("error")
        if isinstance(failure, dict):
            raise from_code(int(failure.get("code", 2)), str(failure.get("message", "")))
        return answer

    def exchange_bytes(self, data: bytes, *, deadline: float) -> bytes:
        """Like :meth:`exchange` for helpers that speak plain bytes; a non-zero exit status is Unavailable."""
        try:
            stdout, stderr = self._process.communicate(data, deadline=deadline, maximum=_MAX_OUTPUT)
            status = self._process.finish(deadline=deadline)
        except DeadlineExceeded:
            raise DeadlineExceeded(f"the helper process {self._name} did not finish in time") from None
        finally:
            self._process.kill()
        if status != 0:
            lines = stderr.decode("utf-8", "replace").strip().splitlines()
            last = lines[-1][:_MAX_ERROR] if lines else "without a word"
            raise Unavailable(f"the helper process {self._name} failed ({status}): {last}")
        return stdout

    def abort(self) -> None:
        """Kill it; :meth:`exchange` then fails at once. From any thread."""
        self._process.abort()


def call(python: Path, name: str, document: Mapping[str, object], *, timeout: float) -> Document:
    """Run a helper to its end, in at most ``timeout`` seconds."""
    return Helper(python, name).exchange(document, deadline=time.monotonic() + timeout)
