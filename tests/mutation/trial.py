# SPDX-License-Identifier: Apache-2.0
"""One fault in one forked process: do the tests notice?"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.machinery
import math
import mmap
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

import pytest

from tests.mutation.mutants import Mutant

_SURVIVED: Final = 77
_NOT_IN_PLACE: Final = 78
_MEMORY: Final = 2 << 30
"""More bytes than the tests without a fault."""
_PATIENCE: Final = 30.0
"""Seconds that a test may stand still beyond 30 times what it needs."""


class Outcome(Enum):
    """Of one trial. A fault that makes a test run for ever is noticed, too.

    A fault has survived when all tests that run it have passed (when it has a reason, those of the first budget), and
    is undecided when those have passed that there was time for.
    """

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    UNDECIDED = "undecided"
    NOT_IN_PLACE = "must be imported"


class Progress:
    """What the process with the fault tells: how many tests it has begun, and how long the last one may take."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16)

    def begin(self, test: int, seconds: float) -> None:
        """In the process with the fault."""
        self._shared[:16] = test.to_bytes(8, "little") + round(seconds * 1000).to_bytes(8, "little")

    def read(self) -> tuple[int, float]:
        """In the process that waits."""
        return int.from_bytes(self._shared[:8], "little"), int.from_bytes(self._shared[8:16], "little") / 1000


def attempt(run: Callable[[], bool], progress: Progress) -> Outcome:
    """Runs this in a process of its own; it returns False when the fault cannot be put in place."""
    scratch = tempfile.mkdtemp(prefix="parma-mutation-")
    progress.begin(0, 10)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            _seclude(scratch)
            code = _SURVIVED if run() else _NOT_IN_PLACE
        os._exit(code)
    try:
        return _await(pid, progress)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


def _seclude(scratch: str) -> None:
    """Own process group, own folder, silence, and limits."""
    os.setsid()
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    be_silent()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def be_silent() -> None:
    """Nothing goes to the terminal any more."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _await(pid: int, progress: Progress) -> Outcome:
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        last, since = progress.read(), time.monotonic()
        while not poll.poll(1000):
            if progress.read() != last:
                last, since = progress.read(), time.monotonic()
            if time.monotonic() - since > _PATIENCE + 30 * last[1]:
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(handle)
    if os.WIFSIGNALED(status):
        return Outcome.TIMED_OUT if os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL} else Outcome.KILLED
    codes = {_SURVIVED: Outcome.SURVIVED, _NOT_IN_PLACE: Outcome.NOT_IN_PLACE}
    return codes.get(os.WEXITSTATUS(status), Outcome.KILLED)


class FirstFailure:
    """A plugin of pytest: ends the process at once."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test."""
        if report.failed:
            os._exit(1)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported is noticed as well."""
        if report.failed:
            os._exit(1)


def run_tests(items: Sequence[pytest.Item], seconds: Sequence[float], progress: Progress) -> None:
    """Each with a limit of processor time. Does not return after a failure."""
    for index, item in enumerate(items):
        progress.begin(index, seconds[index])
        used = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + 8 * seconds[index] + 2), resource.RLIM_INFINITY))
        following = items[index + 1] if index + 1 < len(items) else None
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)


def in_own_folder(work: Callable[[], None]) -> None:
    """Temporary files of this process go away with it."""
    with tempfile.TemporaryDirectory(prefix="parma-mutation-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        work()


def use_own_folder(config: pytest.Config) -> None:
    """Tests have their folders where this process has its temporary files, not where the one before it had."""
    config._tmp_path_factory._basetemp = Path(tempfile.gettempdir())  # type: ignore[attr-defined]


def make_shared_fixtures(items: Sequence[pytest.Item], seconds: Mapping[str, float]) -> None:
    """Makes what is made once for all tests, by running the quickest test of each, so that no fork has to."""
    quickest: dict[str, pytest.Function] = {}
    usable = [item for item in items if isinstance(item, pytest.Function) and item.nodeid in seconds]
    for item in sorted(usable, key=lambda item: seconds[item.nodeid]):
        for name, definitions in item._fixtureinfo.name2fixturedefs.items():
            if definitions[-1].scope == "session":
                quickest.setdefault(name, item)
    for item in dict.fromkeys(quickest.values()):
        following = next((other for other in usable if other is not item), None)  # or all would be taken down again
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)


def import_all(names: Iterable[str]) -> None:
    """Imports modules that functions import only when they are called."""
    for name in names:
        importlib.import_module(name)


def live_functions(files: set[Path]) -> list[FunctionType]:
    """Everything that was made of the files' ``def``."""
    names = {str(path) for path in files}
    return [
        found for found in gc.get_objects() if isinstance(found, FunctionType) and found.__code__.co_filename in names
    ]


def forget_results() -> None:
    """Empties every `functools.cache`: what was computed before a fault says nothing of it."""
    for cached in gc.get_objects():
        if isinstance(cached, functools._lru_cache_wrapper):
            cached.cache_clear()


def put_in_place(mutant: Mutant, functions: Iterable[FunctionType]) -> bool:
    """Gives the functions of the mutant's scope the faulty code. False when they cannot take it, or there are none."""
    faulty = {(code.co_qualname, code.co_firstlineno): code for code in _codes(mutant.fault.compile(mutant.path))}
    placed = False
    for function in functions:
        code = function.__code__
        if code.co_filename == str(mutant.path) and code.co_qualname == mutant.scope:
            other = faulty.get((code.co_qualname, code.co_firstlineno))
            if other is None or other.co_freevars != code.co_freevars:
                return False
            function.__code__ = other
            placed = True
    return placed


def _codes(code: CodeType) -> Iterable[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def put_before_import(mutant: Mutant) -> bool:
    """The module will be imported with the fault. False when it is imported already."""
    if any(getattr(module, "__file__", None) == str(mutant.path) for module in list(sys.modules.values())):
        return False
    code, original = mutant.fault.compile(mutant.path), importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: importlib.machinery.SourceFileLoader, name: str) -> CodeType | None:
        return code if loader.path == str(mutant.path) else original(loader, name)

    setattr(importlib.machinery.SourceFileLoader, "get_code", get_code)  # noqa: B010  # mypy: a method is no variable
    return True
