# SPDX-License-Identifier: Apache-2.0
"""``./dev bench``: Parma beside runc's shim on the same containerd, in the same run, as ratios.

Machines are shared and noisy, so medians of interleaved runs are compared and absolute numbers are only an aid.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devtool import images, paths, policy_bench, verification_bench
from devtool.containerd import RUNTIME, PrivateContainerd

RUNC = "io.containerd.runc.v2"
BINARY = {RUNC: "containerd-shim-runc-v2", RUNTIME: "containerd-shim-parma-v2"}
REFERENCE = "parma.example/busybox:bench"
SLEEP = ("/bin/sleep", "100000")
TRUE = ("/bin/true",)


@dataclass(frozen=True)
class Row:
    """One measured quantity for both runtimes; ``unit`` says of what."""

    name: str
    unit: str
    runc: float
    parma: float

    @property
    def ratio(self) -> float:
        return self.parma / self.runc


def report(row: Row) -> Row:
    print(f"{row.name:44} {row.parma:10.2f} {row.runc:10.2f} {row.unit:5} x{row.ratio:.2f}", flush=True)
    return row


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def interleaved(rounds: int, actions: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each action over the rounds; the actions take turns, so that noise hits all alike."""
    samples: dict[str, list[float]] = {key: [] for key in actions}
    for _ in range(rounds):
        for key, action in actions.items():
            samples[key].append(action())
    return {key: statistics.median(values) for key, values in samples.items()}


class Bench:
    """One private containerd with an image and policies, and the measurements on it."""

    def __init__(self, daemon: PrivateContainerd, policies: dict[str, Path]) -> None:
        self.daemon = daemon
        self.policies = policies
        self.counter = 0

    def fresh_name(self) -> str:
        self.counter += 1
        return f"b{self.counter}"

    def run(self, runtime: str, name: str, *flags: str) -> None:
        """``ctr run --detach`` of a sleeping container."""
        if runtime == RUNTIME:
            flags = (*flags, "--annotation", f"io.parma.policy-file={self.policies['sleep']}")
        done = self.daemon.ctr("run", "--detach", "--runtime", runtime, *flags, REFERENCE, name, *SLEEP, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    def remove(self, name: str) -> None:
        self.daemon.ctr("task", "delete", "--force", name)
        self.daemon.ctr("container", "delete", name)

    @contextmanager
    def container(self, runtime: str) -> Iterator[str]:
        name = self.fresh_name()
        self.run(runtime, name)
        try:
            yield name
        finally:
            self.remove(name)

    def binary(self, runtime: str, action: str) -> float:
        """Wall time in ms of one execution of the shim binary for ``start`` or ``delete``, as containerd does it."""
        name = self.fresh_name()
        bundle = self.daemon.root / "bundles" / name
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text('{"ociVersion":"1.2.0","annotations":{}}')
        (bundle / "rootfs").mkdir()
        os.mkfifo(bundle / "log", 0o700)
        log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
        address = str(self.daemon.address)
        environment = self.daemon.environment() | {
            "TTRPC_ADDRESS": f"{address}.ttrpc",
            "GRPC_ADDRESS": address,
            "NAMESPACE": "bench",
            "MAX_SHIM_VERSION": "2",
            "GOMAXPROCS": "2",
        }
        command = [BINARY[runtime], "-namespace", "bench", "-address", address]
        command += ["-publish-binary", str(self.daemon.binaries / "containerd"), "-id", name]

        def execute(*words: str) -> tuple[float, bytes]:
            began = time.perf_counter()
            done = subprocess.run(
                [*command, *words],
                cwd=bundle,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
            )
            return (time.perf_counter() - began) * 1000, done.stdout

        start, answer = execute("start")
        self._shutdown(json.loads(answer)["address"], name)
        delete, _ = execute("-bundle", str(bundle), "delete")
        os.close(log)
        return start if action == "start" else delete

    def _shutdown(self, address: str, name: str) -> None:
        """Asks the idle shim to exit and waits until it has."""
        import socket

        from google.protobuf import empty_pb2

        from parma_shim.api import task_pb2
        from ttrpc import Client, TtrpcError

        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address.removeprefix("unix://"))
            client = Client(connection)
            request = task_pb2.ShutdownRequest(id=name, now=True)
            # runc's shim may be gone before its answer.
            with suppress(TtrpcError):
                client.call("containerd.task.v3.Task", "Shutdown", request, empty_pb2.Empty, timeout=10)
            while not client.closed:
                time.sleep(0.002)

    def exec_true(self, name: str) -> float:
        return milliseconds(
            lambda: self.daemon.ctr("task", "exec", "--exec-id", self.fresh_name(), name, *TRUE, timeout=60)
        )

    def is_running(self, name: str) -> bool:
        listing = self.daemon.ctr("task", "list").stdout.splitlines()
        return any(line.split()[:1] == [name] and line.split()[-1] == "RUNNING" for line in listing)

    def kill_and_wait(self, runtime: str) -> float:
        """From the kill to the waiting client's return."""
        name = self.fresh_name()
        flags = ("--annotation", f"io.parma.policy-file={self.policies['sleep']}") if runtime == RUNTIME else ()
        arguments = ("run", "--rm", "--runtime", runtime, *flags, REFERENCE, name, *SLEEP)
        with self.daemon.popen(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not self.is_running(name):
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended by itself")
                time.sleep(0.1)
            return milliseconds(lambda: (self.daemon.ctr("task", "kill", "--signal", "KILL", name), process.wait(60)))

    def create_in_group(self, runtime: str, owner: str) -> float:
        """``ctr run -d`` of another container in a pod that is there already: Create and Start without a VM boot."""
        name = self.fresh_name()
        annotation = f"io.kubernetes.cri.sandbox-id={owner}"
        took = milliseconds(lambda: self.run(runtime, name, "--annotation", annotation))
        self.remove(name)
        return took


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


def measure_boot(bench: Bench) -> dict[str, float]:
    """Milliseconds of each phase from QEMU's start until the enforcer is ready."""
    with bench.container(RUNTIME) as name:
        done = subprocess.run(
            [paths.VENV / "bin/parma", "status", "--wait", "30", "--json", name],
            env={**bench.daemon.environment(), "PARMA_CONFIG": str(bench.daemon.parma_config)},
            capture_output=True,
            check=True,
        )
    timings: dict[str, float] = json.loads(done.stdout)["boot"]
    return timings


def measure_layers() -> None:
    """Conversion of a 200 MiB layer beside ``veritysetup format`` of the same image."""
    from parma_policy.layers import benchmark

    benchmark.main(veritysetup=paths.PREFIX / "bin/veritysetup")


def make_policies(daemon: PrivateContainerd, archive: Path) -> dict[str, Path]:
    path = daemon.root / "policies" / "sleep.rego"
    subprocess.run(
        [
            *(paths.VENV / "bin/parma", "policy", "generate", "--image-archive", archive),
            *("--command", json.dumps(SLEEP), "--exec", json.dumps(TRUE), "--out", path),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {"sleep": path}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the quick measurements")
    parser.add_argument("--shims", type=int, default=10, help="idle shims whose memory is measured")
    parser.add_argument("--execs", type=int, default=2000, help="execs over which growth is looked for; 0 skips it")
    parser.add_argument("--policy", action="store_true", help="only policies: loading, deciding, memory")
    parser.add_argument("--verification", action="store_true", help="only how long verifying a report takes")
    options = parser.parse_args(arguments)
    if options.policy:
        policy_bench.main()
        return 0
    verification_bench.main()
    if options.verification:
        return 0
    archive = paths.DEV / "busybox-bench.tar"
    images.write_busybox_image(archive, paths.PREFIX / "bin/busybox", REFERENCE)
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        imported = daemon.ctr("image", "import", archive)
        if imported.returncode != 0:
            raise RuntimeError(imported.stderr)
        measure_all(Bench(daemon, make_policies(daemon, archive)), options)
    return 0


def measure_all(bench: Bench, options: argparse.Namespace) -> None:
    """Prints every measurement as it is made."""
    print(f"{'':44} {'parma':>10} {'runc':>10} {'':5} ratio (below 1: Parma needs less)")
    rounds = options.rounds
    for action in ("start", "delete"):
        medians = interleaved(rounds, {r: partial(bench.binary, r, action) for r in BINARY})
        report(Row(f"{action} binary, wall time", "ms", medians[RUNC], medians[RUNTIME]))
    with bench.container(RUNC) as runc, bench.container(RUNTIME) as parma:
        medians = interleaved(rounds, {RUNC: lambda: bench.exec_true(runc), RUNTIME: lambda: bench.exec_true(parma)})
        report(Row("exec of true, as ctr sees it", "ms", medians[RUNC], medians[RUNTIME]))
        owners = {RUNC: runc, RUNTIME: parma}
        medians = interleaved(
            max(3, rounds // 3),
            {r: partial(bench.create_in_group, r, owners[r]) for r in BINARY},
        )
        report(Row("ctr run -d in a live pod (no VM boot)", "ms", medians[RUNC], medians[RUNTIME]))
    medians = interleaved(3, {r: partial(bench.kill_and_wait, r) for r in BINARY})
    report(Row("kill and wait, as ctr sees it", "ms", medians[RUNC], medians[RUNTIME]))
    idle = {runtime: measure_memory(bench, runtime, options.shims) for runtime in BINARY}
    for key in ("RSS", "PSS", "private"):
        name = f"idle shim, {key}, median of {options.shims}"
        report(Row(name, "MiB", idle[RUNC][key], idle[RUNTIME][key]))
    for phase, value in measure_boot(bench).items():
        print(f"{f'boot: {phase}':44} {value:10.0f} ms")
    policy_bench.main()
    measure_layers()
    if options.execs:
        for done, size in measure_growth(bench, options.execs):
            print(f"{f'shim RSS after {done} execs':44} {size:10.2f} MiB", flush=True)
