# SPDX-License-Identifier: Apache-2.0
"""Which test runs which lines, and for how long: found by running all tests without a fault, once for each."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import pytest

Line = tuple[str, int]
Function = tuple[str, str]
"""File, and qualified name."""

_MODULE: Final = "<module>"
_CALLS: Final = 100
_LINES: Final = 2000
"""Of one function in one test; following more takes long and shows hardly anything new."""


@dataclass
class Baseline:
    """``lines``: by test; ``seconds``: of processor time while nobody looks at lines, by test; ``at_import``: functions
    that importing calls; ``modules``: names of what was imported of the files, by file."""

    lines: dict[str, set[Line]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    at_import: set[Function] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    modules: dict[str, str] = field(default_factory=dict)


class Tracer:
    """Notes which lines of some files are run. Of threads, too."""

    def __init__(self, files: set[Path]) -> None:
        self._files = {str(path) for path in files}
        self.seen: set[Line] = set()
        self.at_import: set[Function] = set()
        self._calls: Counter[CodeType] = Counter()
        self._lines: Counter[CodeType] = Counter()

    @contextmanager
    def on(self) -> Iterator[None]:
        """While this is held."""
        self._calls.clear()
        self._lines.clear()
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def _call(self, frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if code.co_filename not in self._files:
            return None
        if code.co_name != _MODULE and self._is_importing(frame.f_back):
            self.at_import.add((code.co_filename, code.co_qualname))
        self.seen.add((code.co_filename, frame.f_lineno))
        self._calls[code] += 1
        return self._line if self._calls[code] <= _CALLS and self._lines[code] <= _LINES else None

    def _line(self, frame: FrameType, _event: str, _argument: object) -> Callable[..., Any]:
        code = frame.f_code
        self.seen.add((code.co_filename, frame.f_lineno))
        self._lines[code] += 1
        if self._lines[code] > _LINES:
            frame.f_trace_lines = False
        return self._line

    def _is_importing(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == _MODULE and frame.f_code.co_filename in self._files:
                return True
            frame = frame.f_back
        return False


class Recorder:
    """A plugin of pytest: fills a `Baseline`, all but its times, while the tests run."""

    def __init__(self, files: set[Path]) -> None:
        self.baseline = Baseline()
        self._files = {str(path) for path in files}
        self._tracer = Tracer(files)
        self._of_fixtures: defaultdict[int, set[Line]] = defaultdict(set)

    def collect(self, session: pytest.Session, files: list[str]) -> None:
        """Imports everything."""
        with self._tracer.on():
            session.perform_collect(files)
        self.baseline.at_import = self._tracer.at_import

    def note_modules(self) -> None:
        """When all tests have run."""
        files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
        self.baseline.modules = {file: name for name, file in files.items() if file in self._files}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        """A fixture that outlives its first test belongs to all that use it."""
        before, self._tracer.seen = self._tracer.seen, set()
        try:
            return (yield)
        finally:
            self._of_fixtures[id(fixturedef)] |= self._tracer.seen
            self._tracer.seen |= before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function) -> Iterator[None]:
        """Its fixtures are ready."""
        for fixture in item._request._fixture_defs.values():
            self._tracer.seen |= self._of_fixtures[id(fixture)]
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test, set-up and all."""
        self._tracer.seen = set()
        with self._tracer.on():
            result = yield
        self.baseline.lines[item.nodeid] = self._tracer.seen
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails by itself can tell nothing, and nor can one that is skipped."""
        if report.failed:
            self.baseline.failed.add(report.nodeid)
        if report.skipped:
            self.baseline.skipped.add(report.nodeid)


class Clock:
    """A plugin of pytest: how long each test takes. With a tracer, one that only computes takes 20 times as long."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test, set-up and all."""
        started = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - started
        return result
