# SPDX-License-Identifier: Apache-2.0
"""Searches of several targets, some at a time, each in a process of its own; and what became of each."""

from __future__ import annotations

import base64
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

ROOT: Final = Path(__file__).resolve().parents[2]
STARTED: Final = "fuzz: searches after {:.1f} s"
"""What the fuzzer's process prints when all is imported, and nothing tried yet."""

_STARTED: Final = re.compile(rb"^fuzz: searches after ([0-9.]+) s$", re.MULTILINE)
_EXECUTIONS: Final = re.compile(rb"stat::number_of_executed_units:\s*([0-9]+)|^Done ([0-9]+) runs", re.MULTILINE)
_TAIL: Final = 6000


class Outcome(NamedTuple):
    """Of one search."""

    name: str
    status: int
    """How its process ended: 0 is well."""

    seconds: float
    starting: float
    """Of these, those until the search began."""

    cpu_seconds: float
    executions: int
    said: str
    """The end of what the fuzzer printed."""

    @property
    def broken(self) -> bool:
        """Whether something was found."""
        return self.status != 0

    def __str__(self) -> str:
        verdict = f"BROKEN ({self.status})" if self.broken else "nothing found"
        times = f"{self.seconds / 60:.1f} min (to start: {self.starting:.1f} s; CPU: {self.cpu_seconds / 60:.1f} min)"
        return f"fuzz: {self.name}: {verdict} in {times}, {self.executions:,} inputs"


class Searches:
    """Begins with the first names. Whoever leaves before all have ended ends them."""

    def __init__(self, names: Sequence[str], jobs: int, logs: Path, command: Callable[[str], Sequence[str]]) -> None:
        """``command`` is what searches a target; what it prints goes to ``logs/TARGET.log``."""
        self._names = names
        self._logs = logs
        self._command = command
        self._pool = ThreadPoolExecutor(jobs)
        self._stop = os.eventfd(0)
        self._outcomes: dict[str, Future[Outcome]] = {}

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._outcomes = {name: self._pool.submit(self._search, name) for name in self._names}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for outcome in self._outcomes.values():
            outcome.cancel()
        os.eventfd_write(self._stop, 1)
        self._pool.shutdown()
        os.close(self._stop)

    def outcome(self, name: str) -> Outcome:
        """Waits until its search has ended."""
        return self._outcomes[name].result()

    def _search(self, name: str) -> Outcome:
        log = self._logs / f"{name}.log"
        start = time.monotonic()
        with log.open("wb") as out:
            child = subprocess.Popen(self._command(name), stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
            self._await(child.pid)
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said = log.read_bytes()
        starting, executions = _STARTED.search(said), _EXECUTIONS.findall(said)
        return Outcome(
            name,
            status=child.returncode,
            seconds=time.monotonic() - start,
            starting=float(starting[1]) if starting else 0,
            cpu_seconds=used.ru_utime + used.ru_stime,
            executions=int(b"".join(executions[-1])) if executions else 0,
            said=said[-_TAIL:].decode(errors="replace"),
        )

    def _await(self, pid: int) -> None:
        """Until the process ends, by itself or because nobody wants to know any more."""
        handle = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.register(self._stop, select.POLLIN)
            if handle not in [ready for ready, _ in poll.poll()]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def how_to_keep(name: str, found: Iterable[Path], cases: Path) -> str:
    """The inputs themselves, as commands that write them to where every test run replays them."""
    folder = cases / name
    commands = [
        f"echo {base64.b64encode(path.read_bytes()).decode()} | base64 -d > {folder / path.name}" for path in found
    ]
    return "\n".join(["Once it is mended, keep it as a case:", f"mkdir -p {folder}", *commands]) if commands else ""
