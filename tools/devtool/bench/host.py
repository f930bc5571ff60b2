# SPDX-License-Identifier: Apache-2.0
"""A private containerd with an image and policies, and single measurements on it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devtool import paths
from devtool.bench.rows import milliseconds
from devtool.containerd import RUNTIME, PrivateContainerd

RUNC = "io.containerd.runc.v2"
BINARY = {RUNC: "containerd-shim-runc-v2", RUNTIME: "containerd-shim-parma-v2"}
REFERENCE = "parma.example/busybox:bench"
SLEEP = ("/bin/sleep", "100000")
TRUE = ("/bin/true",)
SINK = ("/bin/sh", "-c", "cat > /dev/null")
SOURCE = ("/bin/sh", "-c", "head -c 67108864 /dev/zero")
SOURCE_MIB = 64


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


def make_policies(daemon: PrivateContainerd, archive: Path) -> dict[str, Path]:
    path = daemon.root / "policies" / "sleep.rego"
    subprocess.run(
        [
            *(paths.VENV / "bin/parma", "policy", "generate", "--image-archive", archive),
            *("--command", json.dumps(SLEEP)),
            *(word for command in (TRUE, SINK, SOURCE) for word in ("--exec", json.dumps(command))),
            *("--out", path),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {"sleep": path}
