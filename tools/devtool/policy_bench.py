# SPDX-License-Identifier: Apache-2.0
"""``./dev bench --policy``: loading policies and deciding, the enforcer's memory, and the Rego engine beside it.

Prints the tables of docs/policy-performance.md.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from devtool import paths, setup
from parma_image import base, contents, lock
from parma_image.debian import DebianArchive
from parma_policy import benchmark, rego
from parma_policy.benchmark import Times
from parma_policy.rego.link import ChildEngine
from parma_wire.errors import ParmaError

_CONTAINERS: Final = (1, 10, 100, 500)

_MEMORY_PROBE: Final = """
import sys, threading
sys.path[:0] = sys.argv[1].split(":")
import parma_guest.init
from parma_guest.decisions import FrameworkEngine, preload
threading.Thread(target=preload).start()
engine = FrameworkEngine(open(sys.argv[2], "rb").read())
for line in open("/proc/self/status"):
    if line.startswith(("VmRSS", "VmHWM")):
        print(line.split()[1])
"""


def main() -> None:
    """Every table."""
    loading()
    deciding()
    memory()
    engine()


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(header)} |\n|{' --- |' * len(header)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def loading() -> None:
    """From bytes to typed values."""

    def rows() -> Iterator[Sequence[str]]:
        for count, times in benchmark.load_times(_CONTAINERS).items():
            size = len(benchmark.policy_text(count)) / 1000
            yield f"{count}", f"{size:.0f}", f"{times.wall_median / 1000:.1f}", f"{times.cpu_median / 1000:.1f}"

    _table(("containers", "policy, kB", "load, ms", "on the processor, ms"), rows())


def deciding() -> None:
    """Every point of a container's life, for each shape of policy."""
    shapes = [(f"{count} container{'s' if count > 1 else ''}", (count, 12, False)) for count in _CONTAINERS]
    shapes += [("40 containers x 40 rules", (40, 40, False)), ("the same, alike but for their rules", (40, 40, True))]

    def rows() -> Iterator[Sequence[str]]:
        for name, (containers, rules, alike) in shapes:
            for point, times in benchmark.decision_times(containers, rules, alike=alike).items():
                yield name, point, *_times(times)

    _table(("policy", "decision", "median, us", "p99, us", "median on the processor", "p99 on the processor"), rows())


def _times(times: Times) -> Sequence[str]:
    return tuple(f"{value:.0f}" for value in (times.wall_median, times.wall_p99, times.cpu_median, times.cpu_p99))


def memory() -> None:
    """Of the guest's enforcer: its own interpreter, from the image, with all its modules and a loaded policy."""

    def rows() -> Iterator[Sequence[str]]:
        for count in _CONTAINERS:
            now, most = _enforcer_memory(count)
            yield f"{count}", f"{now / 1024:.1f}", f"{most / 1024:.1f}"

    _table(("containers in the policy", "resident, MiB", "at most, MiB"), rows())


def _enforcer_memory(containers: int) -> tuple[int, int]:
    """VmRSS and VmHWM in KiB. Byte code is compiled before, as it is in the image."""
    guest = base.prepare(lock.load(), DebianArchive(paths.ARCHIVE, log=setup.say))
    with tempfile.TemporaryDirectory() as temporary:
        policy = Path(temporary, "policy")
        policy.write_bytes(benchmark.policy_text(containers))
        ours = ("guest", "policy", "snp", "ttrpc", "wire", "cose")
        modules = ":".join([*(str(paths.ROOT / name) for name in ours), str(guest.wheels)])
        command = guest.command(contents.INTERPRETER, "-sS", "-c", _MEMORY_PROBE, modules, str(policy))
        environment = {"PYTHONHOME": str(guest.root / "usr"), "PYTHONPYCACHEPREFIX": temporary}
        for _ in range(2):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    now, most = sorted(map(int, done.stdout.split()))
    return now, most


class _Engine:
    """The engine as a child whose memory can be read."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, stdin: int, stdout: int) -> _Engine:
        self._process = subprocess.Popen([self._program], stdin=stdin, stdout=stdout, env={})
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def resident(self) -> int:
        """In KiB."""
        assert self._process is not None  # noqa: S101
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def engine() -> None:
    """create_container by a rule that passes the framework's answer on, in the engine of the ``rego`` variant."""
    try:
        program = setup.ensure_rego_engine()
    except ParmaError as error:
        print(f"\nno Rego engine: {error}")
        return

    def rows() -> Iterator[Sequence[str]]:
        for count in _CONTAINERS:
            process = _Engine(program)
            with closing(ChildEngine(process)) as child:
                loaded = Times.of(lambda count=count: rego.load(_with_a_rule(count), child), 1)  # type: ignore[misc]
                times = _rule_times(rego.load(_with_a_rule(count), child), count)
                wall = f"{times.wall_median / 1000:.1f}", f"{times.wall_p99 / 1000:.1f}"
                yield f"{count}", f"{loaded.wall_median / 1000:.0f}", *wall, f"{process.resident() / 1024:.1f}"

    _table(("containers", "start and load, ms", "median, ms", "p99, ms", "engine resident, MiB"), rows())


_OWN_RULE: Final = "create_container := object.union(data.framework.create_container, {})"


def _with_a_rule(containers: int) -> bytes:
    lines = benchmark.policy_text(containers).decode().splitlines()
    kept = (line for line in lines if not line.startswith("create_container "))
    return "\n".join([*kept, _OWN_RULE, ""]).encode()


def _rule_times(policy: rego.RegoPolicy, containers: int) -> Times:
    state = policy.initial_state()
    for point, request in benchmark.preparation():
        decision, state = policy.decide(state, point, request)
        if not decision.allowed:
            raise AssertionError(decision.message())
    request = benchmark.create_request(containers - 1, benchmark.RULES)
    return Times.of(lambda: policy.decide(state, "create_container", request), 300)
