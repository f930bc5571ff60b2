# SPDX-License-Identifier: Apache-2.0
"""What long-lived processes hold: containerd's descriptors, goroutines and heap, a shim's memory and descriptors.

containerd's own profiler tells what its memory is after a collection; sizes that the kernel reports would rather say
when its collector last ran.
"""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.crashes import shim
from tests.e2e.host import Host

HEAP_ALLOWANCE = 4 << 20
"""Bytes: caches of containerd's database and of its connections, which do not grow further."""

GROWTH_KIB = 1024
"""What each shim's private memory may differ from one moment to another with the same work behind it."""

PEAK_KIB = 3072
"""What a shim may keep of its first storm, whose containers are all gone: what remains lies among what went, and stacks
are kept for other threads. A second storm finds the room and needs no more."""

REST = 20.0
"""Seconds: more than the 15 after which a shim looks for memory to give back."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Footprint:
    """One moment's."""

    descriptors: Counter[str]
    """Of containerd, by what they are."""
    goroutines: int
    heap: int
    """Bytes."""
    shim_descriptors: Counter[str]
    """Of the shims that run."""
    shims: int
    shim_kib: int
    """Their private memory, together."""

    @classmethod
    def take(cls, host: Host) -> Footprint:
        assert host.daemon.process is not None
        shims = [held for pid in shim(host) if (held := _held(pid))]
        return cls(
            descriptors=_descriptors(host.daemon.process.pid),
            goroutines=int(_profile(host, "goroutine", r"total (\d+)")),
            heap=int(_profile(host, "heap", r"# HeapAlloc = (\d+)", "gc=1&")),
            shim_descriptors=sum((held for held, _ in shims), Counter()),
            shims=len(shims),
            shim_kib=sum(kib for _, kib in shims),
        )

    def growth(self, before: Footprint, shim_allowance_kib: int = GROWTH_KIB) -> dict[str, object]:
        """What is more than before, beyond what is allowed. The allowance is each shim's."""
        shim_kib = self.shim_kib - before.shim_kib - self.shims * shim_allowance_kib
        found: dict[str, object] = {
            "descriptors of containerd": dict(self.descriptors - before.descriptors),
            "goroutines of containerd": max(0, self.goroutines - before.goroutines),
            "heap of containerd": max(0, self.heap - before.heap - HEAP_ALLOWANCE),
            "descriptors of the shim": dict(self.shim_descriptors - before.shim_descriptors),
            "KiB of the shims": max(0, shim_kib),
        }
        return {what: more for what, more in found.items() if more}

    def __str__(self) -> str:
        return (
            f"containerd: {self.descriptors.total()} descriptors, {self.goroutines} goroutines,"
            f" {self.heap / (1 << 20):.1f} MiB of heap; shim: {self.shim_descriptors.total()} descriptors,"
            f" {self.shim_kib / 1024:.1f} MiB"
        )


def at_rest(host: Host) -> Footprint:
    """What is held when nothing is done any more: taken when the shims have stopped to give memory back."""
    lowest, until = Footprint.take(host), time.monotonic() + REST
    while time.monotonic() < until:
        time.sleep(0.5)
        now = Footprint.take(host)
        if now.shim_kib < lowest.shim_kib:
            lowest, until = now, time.monotonic() + REST
    return lowest


def assert_no_growth(host: Host, before: Footprint, shim_allowance_kib: int = GROWTH_KIB) -> Footprint:
    """What has come since goes by itself, soon. Returns what there is then."""
    deadline = time.monotonic() + 60
    while (growth := (now := Footprint.take(host)).growth(before, shim_allowance_kib)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not growth, growth
    return now


def _held(pid: int) -> tuple[Counter[str], int] | None:
    """Descriptors and private memory of a shim; None of one that has ended since it was seen."""
    try:
        return _descriptors(pid), _private_kib(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _descriptors(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        found[re.sub(r":\[\d+\]$", "", target)] += 1
    return found


def _private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split()[0]: int(line.split()[1]) for line in lines}
    return fields["Private_Clean:"] + fields["Private_Dirty:"]


def _profile(host: Host, name: str, pattern: str, query: str = "") -> str:
    """A number of one of containerd's profiles."""
    connection = _UnixConnection(host.daemon.root / "debug.sock")
    try:
        connection.request("GET", f"/debug/pprof/{name}?{query}debug=1")
        text = connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()
    found = re.search(pattern, text)
    assert found, text[:200]
    return found[1]
