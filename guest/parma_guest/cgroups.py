# SPDX-License-Identifier: Apache-2.0
"""A container's cgroup (version 2): who is in it, what it uses, freezing and killing it."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from parma_guest import paths
from parma_guest.values import ContainerId
from parma_wire.errors import DeadlineExceeded, NotFound, Unavailable

UNLIMITED: Final = 2**64 - 1
FREEZE_TIMEOUT: Final = 5.0
_POLL: Final = 0.01


class Usage(NamedTuple):
    """As the kernel counts: bytes, microseconds, events. No limit is UNLIMITED for memory and 0 for pids."""

    memory_usage: int
    memory_limit: int
    memory_inactive_file: int
    memory_anon: int
    memory_file: int
    oom_events: int
    oom_kill_events: int
    cpu_usage_us: int
    cpu_user_us: int
    cpu_system_us: int
    cpu_nr_periods: int
    cpu_nr_throttled: int
    cpu_throttled_us: int
    pids_current: int
    pids_limit: int
    io_read_bytes: int
    io_write_bytes: int
    memory_page_faults: int
    memory_major_page_faults: int


class Cgroup:
    """One container's cgroup. Files that a kernel lacks count as empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def of(cls, container: ContainerId) -> Cgroup:
        """In the running kernel."""
        return cls(Path(paths.cgroup_directory(container)))

    def pids(self) -> list[int]:
        """Every process in it, as the guest numbers them. Raises `NotFound` when the cgroup has gone."""
        try:
            return [int(line) for line in (self._directory / "cgroup.procs").read_text().split()]
        except OSError as error:
            raise NotFound("the container has no processes") from error

    def usage(self) -> Usage:
        """Raises `NotFound` when the cgroup has gone."""
        if not self._directory.is_dir():
            raise NotFound("the container has no cgroup")
        memory = self._table("memory.stat")
        events = self._table("memory.events")
        cpu = self._table("cpu.stat")
        io = self._io()
        return Usage(
            memory_usage=self._number("memory.current"),
            memory_limit=self._number("memory.max", UNLIMITED),
            memory_inactive_file=memory.get("inactive_file", 0),
            memory_anon=memory.get("anon", 0),
            memory_file=memory.get("file", 0),
            oom_events=events.get("oom", 0),
            oom_kill_events=events.get("oom_kill", 0),
            cpu_usage_us=cpu.get("usage_usec", 0),
            cpu_user_us=cpu.get("user_usec", 0),
            cpu_system_us=cpu.get("system_usec", 0),
            cpu_nr_periods=cpu.get("nr_periods", 0),
            cpu_nr_throttled=cpu.get("nr_throttled", 0),
            cpu_throttled_us=cpu.get("throttled_usec", 0),
            pids_current=self._number("pids.current"),
            pids_limit=self._number("pids.max"),
            io_read_bytes=io[0],
            io_write_bytes=io[1],
            memory_page_faults=memory.get("pgfault", 0),
            memory_major_page_faults=memory.get("pgmajfault", 0),
        )

    def oom_kills(self) -> int:
        """How often the kernel killed a process here for want of memory."""
        return self._table("memory.events").get("oom_kill", 0)

    def signal_all(self, number: int) -> None:
        """Every process in it; SIGKILL also catches those that are being forked."""
        if number == signal.SIGKILL:
            self.kill()
            return
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """Kills every process in it. Nothing happens when it has gone."""
        try:
            (self._directory / "cgroup.kill").write_text("1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # ENODEV: it goes at this very moment
                raise

    def freeze(
        self,
        frozen: bool,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Stops or continues every process, and waits until that is so. Continues them when stopping fails."""
        self._write_freeze(frozen)
        deadline = clock() + FREEZE_TIMEOUT
        while self._table("cgroup.events").get("frozen", 0) != int(frozen):
            if clock() > deadline:
                if frozen:
                    self._write_freeze(False)
                raise DeadlineExceeded("the container does not come to rest", expected=f"within {FREEZE_TIMEOUT:.0f} s")
            sleep(_POLL)

    def _write_freeze(self, frozen: bool) -> None:
        try:
            (self._directory / "cgroup.freeze").write_text("1" if frozen else "0")
        except OSError as error:
            raise Unavailable("the container's cgroup cannot be frozen") from error

    def _text(self, name: str) -> str:
        try:
            return (self._directory / name).read_text()
        except OSError:
            return ""

    def _number(self, name: str, unlimited: int = 0) -> int:
        text = self._text(name).strip()
        return int(text) if text.isdigit() else unlimited

    def _table(self, name: str) -> dict[str, int]:
        rows = (line.split() for line in self._text(name).splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def _io(self) -> tuple[int, int]:
        totals = {"rbytes": 0, "wbytes": 0}
        for word in self._text("io.stat").split():
            name, _, value = word.partition("=")
            if name in totals and value.isdigit():
                totals[name] += int(value)
        return totals["rbytes"], totals["wbytes"]
