# SPDX-License-Identifier: Apache-2.0
"""Pods through containerd's CRI plugin, as crictl sees them, on a node that is a network namespace of the bench's.

Pods per minute; TCP between two pods that real CNI plugins have connected by a bridge; and what a pod takes of memory.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from devtool import cni, cri, crictl, golang, images, paths
from devtool.bench import pod_memory
from devtool.bench.host import RUNC
from devtool.bench.rows import Row, interleaved, report
from devtool.containerd import RUNTIME, PrivateContainerd
from parma_wire.errors import ParmaError

IMAGE: Final = "parma.example/netprobe:bench"
PAUSE: Final = "parma.example/pause:bench"
SLEEP: Final = ("/bin/sleep", "100000")
SERVE: Final = ("/bin/netprobe", "serve")
HANDLERS: Final = {RUNC: cri.Runtime("runc", RUNC, "podsandbox"), RUNTIME: cri.Runtime("parma", RUNTIME, "podsandbox")}
HOSTNAME: Final = "bench"
LIVES: Final = 4
ROUNDS: Final = 5
NETPROBE: Final = Path(__file__).with_name("netprobe")


@dataclass(frozen=True)
class Pod:
    """A running one with one container."""

    id: str
    container: str
    address: str


def measure() -> None:
    """Prints each row as it is made, or what is missing for that."""
    try:
        cni.ensure()
        crictl.ensure()
        golang.build("build", "-o", paths.GO / "netprobe", ".", cwd=NETPROBE)
    except ParmaError as error:
        print(f"pods are not measured: {error}", flush=True)
        return
    with _pods() as pods:
        each = {runtime: pods.per_minute(runtime) for runtime in HANDLERS}
        report(Row("pods, as crictl sees it", "/min", each[RUNC], each[RUNTIME], more_is_better=True))
        _measure_pairs(pods)


def _measure_pairs(pods: Pods) -> None:
    """Of each runtime a pod that serves, and one that asks it and does nothing else meanwhile."""
    with ExitStack() as alive:
        clients: dict[str, tuple[Pod, str]] = {}
        for runtime in HANDLERS:
            server = alive.enter_context(pods.running(runtime, SERVE))
            execs = [_probe(what, server.address) for what in ("throughput", "latency")]
            client = alive.enter_context(pods.running(runtime, SLEEP, [*execs, pod_memory.MEMINFO]))
            clients[runtime] = client, server.address
        pod_memory.measure(
            pods.crictl,
            pods.daemon,
            {runtime: pod.id for runtime, (pod, _) in clients.items()},
            clients[RUNTIME][0].container,
        )
        for what, name, unit, more in (
            ("throughput", "TCP between two pods, one stream", "MiB/s", True),
            ("latency", "TCP between two pods, a byte there and back", "us", False),
        ):
            actions = {
                runtime: partial(pods.probe, client, _probe(what, address))
                for runtime, (client, address) in clients.items()
            }
            medians = interleaved(ROUNDS, actions)
            report(Row(name, unit, medians[RUNC], medians[RUNTIME], more_is_better=more))


def _probe(what: str, address: str) -> tuple[str, ...]:
    return ("/bin/netprobe", what, address)


class Pods:
    """One private containerd, and pods on it."""

    def __init__(self, daemon: PrivateContainerd, archive: Path) -> None:
        self.daemon = daemon
        self.crictl = crictl.Crictl(daemon.address)
        self._archive = archive
        self._numbers = itertools.count()
        self._policies: dict[str, Path] = {}

    def per_minute(self, runtime: str) -> float:
        """Run, one container created and started, stopped and removed, one after the other."""
        self._policy(SLEEP, ())
        began = time.perf_counter()
        for _ in range(LIVES):
            with self.running(runtime, SLEEP):
                pass
        return 60 * LIVES / (time.perf_counter() - began)

    @contextmanager
    def running(self, runtime: str, command: Sequence[str], execs: Sequence[Sequence[str]] = ()) -> Iterator[Pod]:
        """One with a container that runs this, in which these can be executed."""
        name = f"b{next(self._numbers)}"
        annotations = {"io.parma.policy-file": str(self._policy(command, execs))} if runtime == RUNTIME else {}
        sandbox = self._write(
            f"{name}-pod.json",
            {
                "metadata": {"name": name, "uid": name, "namespace": "default", "attempt": 0},
                "hostname": HOSTNAME,
                "log_directory": str(self.daemon.root / "logs"),
                "annotations": annotations,
                "linux": {},
            },
        )
        security = {"namespace_options": {"pid": 1}, "masked_paths": cri.MASKED, "readonly_paths": cri.READ_ONLY}
        container = self._write(
            f"{name}.json",
            {
                "metadata": {"name": "app", "attempt": 0},
                "image": {"image": IMAGE},
                "command": command,
                "log_path": f"{name}.log",
                "linux": {"security_context": security},
            },
        )
        pod = self.crictl("runp", "--runtime", HANDLERS[runtime].name, sandbox)
        try:
            app = self.crictl("create", pod, container, sandbox)
            self.crictl("start", app)
            status = json.loads(self.crictl("inspectp", pod))["status"]
            yield Pod(pod, app, status["network"]["ip"])
        finally:
            self.crictl("stopp", pod)
            self.crictl("rmp", pod)

    def probe(self, client: Pod, command: Sequence[str]) -> float:
        """The number that it prints."""
        return float(self.crictl("exec", "--sync", client.container, *command))

    def _write(self, name: str, document: Mapping[str, Any]) -> Path:
        path = self.daemon.root / name
        path.write_text(json.dumps(document))
        return path

    def _policy(self, command: Sequence[str], execs: Sequence[Sequence[str]]) -> Path:
        """From a manifest, as for Kubernetes, which has a place for commands that may be executed: probes."""
        key = json.dumps([command, execs])
        if key not in self._policies:
            kinds = ("livenessProbe", "readinessProbe", "startupProbe")
            probes = {kind: {"exec": {"command": words}} for kind, words in zip(kinds, execs, strict=False)}
            spec = {
                "automountServiceAccountToken": False,
                "containers": [{"name": "app", "image": IMAGE, "command": command, **probes}],
            }
            number = len(self._policies)
            manifest = self._write(
                f"{number}.yaml", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": HOSTNAME}, "spec": spec}
            )
            policy = self.daemon.root / f"policies/{number}.rego"
            subprocess.run(
                [
                    paths.VENV / "bin/parma",
                    "policy",
                    "generate",
                    "--kubernetes",
                    manifest,
                    "--image-archive",
                    self._archive,
                    "--out",
                    policy,
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            self._policies[key] = policy
        return self._policies[key]


@contextmanager
def _pods() -> Iterator[Pods]:
    """containerd with both runtimes and the images, in a network namespace that goes with it."""
    node = f"parma-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", node], check=True)
    try:
        subprocess.run(["ip", "-n", node, "link", "set", "lo", "up"], check=True)

        def configure(root: Path) -> str:
            cni.write_network(root / "cni", root / "cni-bin")
            return cri.configuration(root, PAUSE, tuple(HANDLERS.values()))

        with PrivateContainerd(
            paths.PREFIX / "containerd-2.1",
            cri=configure,
            wrapper=["nsenter", f"--net=/run/netns/{node}", "--"],
            programs=[cni.BIN],
        ) as daemon:
            yield Pods(daemon, _import_images(daemon))
    finally:
        subprocess.run(["ip", "netns", "del", node], check=True)


def _import_images(daemon: PrivateContainerd) -> Path:
    """runc needs a pause container that does something: sleep. Returns the archive of the other."""
    base = images.busybox_layer((paths.PREFIX / "bin/busybox").read_bytes())
    probe = images.LayerBuilder()
    probe.file("bin/netprobe", (paths.GO / "netprobe").read_bytes(), 0o755)
    archive, pause = daemon.root / "netprobe.tar", daemon.root / "pause.tar"
    images.write_archive(archive, IMAGE, [base, probe.finish()], images.ImageConfig())
    images.write_archive(pause, PAUSE, [base], images.ImageConfig(cmd=SLEEP))
    for path in (archive, pause):
        imported = daemon.ctr("--namespace", cri.NAMESPACE, "image", "import", path)
        if imported.returncode != 0:
            raise RuntimeError(imported.stderr)
    return archive
