# SPDX-License-Identifier: Apache-2.0
"""How much memory shims need, and whether it grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from devtool.bench.host import BINARY, Bench
from devtool.containerd import RUNTIME, PrivateContainerd


def memory(pid: int) -> dict[str, float]:
    """RSS, PSS and private memory of a process in MiB."""
    fields: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value, *_ = line.split()
        fields[key] = int(value) / 1024
    private = fields["Private_Clean:"] + fields["Private_Dirty:"]
    return {"RSS": fields["Rss:"], "PSS": fields["Pss:"], "private": private}


def shims(daemon: PrivateContainerd, runtime: str) -> list[int]:
    """The shim daemons of this containerd."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(Path(word).name == BINARY[runtime] for word in words[:4]) and str(daemon.address) in words:
                found.append(int(entry.name))
    return found


def measure_memory(bench: Bench, runtime: str, count: int) -> dict[str, float]:
    """Medians over ``count`` idle shims."""
    names = [bench.fresh_name() for _ in range(count)]
    for name in names:
        bench.run(runtime, name)
    # Go's collector returns memory half a minute after the last work; both get the same rest.
    time.sleep(35)
    samples = [memory(pid) for pid in shims(bench.daemon, runtime)]
    for name in names:
        bench.remove(name)
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def measure_growth(bench: Bench, execs: int) -> Iterator[tuple[int, float]]:
    """RSS of Parma's shim in MiB after every quarter of so many execs: warming up costs something, and then ends."""
    with bench.container(RUNTIME) as name:
        (pid,) = shims(bench.daemon, RUNTIME)
        for done in range(execs + 1):
            if done % max(1, execs // 4) == 0:
                yield done, memory(pid)["RSS"]
            bench.exec_true(name)
