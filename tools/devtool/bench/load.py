# SPDX-License-Identifier: Apache-2.0
"""Under load: containers per minute, execs one by one and ten at once, bytes through stdin and stdout."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devtool import paths
from devtool.bench.host import RUNC, SINK, SOURCE, SOURCE_MIB, Bench
from devtool.bench.rows import Row, report
from devtool.containerd import RUNTIME

VMS = 4
"""Containers with a VM each that are run for the first number."""

LIVES = 12
EXECS = 20
TRANSFERS = 3


def measure(bench: Bench) -> None:
    """Prints each row as it is made."""
    alone = {runtime: _per_minute(bench, runtime, VMS) for runtime in (RUNC, RUNTIME)}
    report(Row("containers, each with its VM", "/min", alone[RUNC], alone[RUNTIME], more_is_better=True))
    with bench.container(RUNC) as runc, bench.container(RUNTIME) as parma:
        owners = {RUNC: runc, RUNTIME: parma}
        pod = {runtime: _per_minute(bench, runtime, LIVES, owners[runtime]) for runtime in owners}
        report(Row("containers in a live pod", "/min", pod[RUNC], pod[RUNTIME], more_is_better=True))
        for at_once in (1, 10):
            took = {runtime: _exec_latency(bench, owners[runtime], at_once) for runtime in owners}
            report(Row(f"exec of true, {at_once} in parallel, median", "ms", took[RUNC], took[RUNTIME]))
        for what, transfer in (("stdout", _read), ("stdin", _write)):
            speed = {runtime: _speed(bench, owners[runtime], transfer) for runtime in owners}
            report(Row(f"throughput of {what}", "MiB/s", speed[RUNC], speed[RUNTIME], more_is_better=True))


def _per_minute(bench: Bench, runtime: str, count: int, owner: str = "") -> float:
    """Created, started, stopped and deleted, one after the other."""
    flags = ("--annotation", f"io.kubernetes.cri.sandbox-id={owner}") if owner else ()
    began = time.perf_counter()
    for _ in range(count):
        name = bench.fresh_name()
        bench.run(runtime, name, *flags)
        bench.remove(name)
    return 60 * count / (time.perf_counter() - began)


def _exec_latency(bench: Bench, name: str, at_once: int) -> float:
    with ThreadPoolExecutor(at_once) as pool:
        return statistics.median(pool.map(lambda _: bench.exec_true(name), range(EXECS)))


def _speed(bench: Bench, name: str, transfer: Callable[[Bench, str], None]) -> float:
    """The best of several: what else the machine does only slows it down."""
    times = []
    for _ in range(TRANSFERS):
        began = time.perf_counter()
        transfer(bench, name)
        times.append(time.perf_counter() - began)
    return SOURCE_MIB / min(times)


def _read(bench: Bench, name: str) -> None:
    _exec(bench, name, SOURCE, stdin=None)


def _write(bench: Bench, name: str) -> None:
    data = paths.DEV / "bench-input"
    if not data.exists():
        data.write_bytes(bytes(SOURCE_MIB << 20))
    _exec(bench, name, SINK, stdin=data)


def _exec(bench: Bench, name: str, command: tuple[str, ...], *, stdin: Path | None) -> None:
    arguments = ("task", "exec", "--exec-id", bench.fresh_name(), name, *command)
    with (stdin or Path("/dev/null")).open("rb") as source:
        process = bench.daemon.popen(*arguments, stdin=source, stdout=subprocess.DEVNULL)
        if process.wait(300) != 0:
            raise RuntimeError(f"{command} failed")
