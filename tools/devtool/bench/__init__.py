# SPDX-License-Identifier: Apache-2.0
"""``./dev bench``: Parma beside runc's shim on the same containerd, in the same run, as ratios.

Machines are shared and noisy, so medians of interleaved runs are compared and absolute numbers are only an aid.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from functools import partial

from devtool import images, paths, policy_bench, verification_bench
from devtool.bench import disks, load, pods
from devtool.bench.host import BINARY, REFERENCE, RUNC, Bench, make_policies
from devtool.bench.memory import measure_growth, measure_memory
from devtool.bench.rows import Row, head, interleaved, report
from devtool.containerd import RUNTIME, PrivateContainerd


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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the quick measurements")
    parser.add_argument("--shims", type=int, default=10, help="idle shims whose memory is measured")
    parser.add_argument("--execs", type=int, default=2000, help="execs over which growth is looked for; 0 skips it")
    parser.add_argument("--policy", action="store_true", help="only policies: loading, deciding, memory")
    parser.add_argument("--verification", action="store_true", help="only how long verifying a report takes")
    parser.add_argument("--load", action="store_true", help="only containers per minute, execs, stdio and disks")
    parser.add_argument("--pods", action="store_true", help="only pods: per minute, memory, the network between two")
    options = parser.parse_args(arguments)
    if options.policy:
        policy_bench.main()
        return 0
    if options.pods:
        head()
        pods.measure()
        return 0
    if not options.load:
        verification_bench.main()
    if options.verification:
        return 0
    archive = paths.DEV / "busybox-bench.tar"
    images.write_busybox_image(archive, paths.PREFIX / "bin/busybox", REFERENCE)
    with PrivateContainerd(paths.PREFIX / "containerd-2.1") as daemon:
        imported = daemon.ctr("image", "import", archive)
        if imported.returncode != 0:
            raise RuntimeError(imported.stderr)
        bench = Bench(daemon, make_policies(daemon, archive))
        head()
        if not options.load:
            measure_all(bench, options)
        load.measure(bench)
    if not options.load:
        pods.measure()
    disks.measure()
    return 0


def measure_all(bench: Bench, options: argparse.Namespace) -> None:
    """Prints every measurement as it is made."""
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
