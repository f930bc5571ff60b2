# SPDX-License-Identifier: Apache-2.0
"""A private containerd with its own root, state, sockets and shim launcher; the machine's own is never touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from devtool import paths

RUNTIME = "io.containerd.parma.v2"
NAMESPACE = "default"

_CONFIG = """\
version = {version}
root = "{root}/root"
state = "{root}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
]
[grpc]
  address = "{root}/c.sock"
[debug]
  address = "{root}/debug.sock"
  level = "{level}"
[metrics]
  address = "{metrics}"
"""


_CRI_PLUGINS = '"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",'


@dataclass(frozen=True)
class Completed:
    """What one ``ctr`` call did."""

    returncode: int
    stdout: str
    stderr: str


class Client(subprocess.Popen[bytes]):
    """A ``ctr`` that may run for ever: used as a context, it is not waited for when what it encloses has failed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        super().__exit__(kind, error, trace)


class PrivateContainerd:
    """One daemon and everything it leaves behind, below one short-named temporary directory."""

    def __init__(
        self,
        binaries: Path,
        *,
        parma_config: Mapping[str, object] | None = None,
        level: str = "info",
        environment: Mapping[str, str] | None = None,
        programs: Sequence[Path] = (),
        metrics: str = "",
        wrapper: Sequence[str] = (),
        cri: Callable[[Path], str] | None = None,
        added_config: str = "",
    ) -> None:
        """
        Args:
            environment: added to the daemon's, and so to its shims'.
            programs: folders that come first in its PATH.
            metrics: host and port at which its Prometheus collector answers; empty: none.
            wrapper: a command that executes the daemon in its own place.
            cri: makes the configuration of the CRI plugin for the daemon's directory; without it there is no such
                plugin.
            added_config: goes to the end of the daemon's configuration.
        """
        self.binaries = binaries
        self.wrapper = tuple(wrapper)
        self._added_environment = dict(environment or {})
        self._programs = tuple(programs)
        # Short, as unix socket paths may not exceed 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="parma-"))
        self.address = self.root / "c.sock"
        self.log = self.root / "containerd.log"
        self.data = self.root / "data"
        """Parma's layer cache and the emulated secure processor's keys."""
        version = 2 if cri is None else 3
        text = _CONFIG.format(root=self.root, level=level, metrics=metrics, version=version)
        if cri is not None:
            text = text.replace(_CRI_PLUGINS, "") + cri(self.root)
        (self.root / "config.toml").write_text(text + added_config)
        self.process: subprocess.Popen[bytes] | None = None
        self._write_parma(parma_config or {})

    def _write_parma(self, settings: Mapping[str, object]) -> None:
        """The host's Parma configuration and a shim launcher that has its path built in."""
        from parma_shim import launcher

        prefix = paths.PREFIX
        values: dict[str, object] = {
            "tee": "emulated",
            "image_dir": str(paths.IMAGE),
            "qemu": str(prefix / "bin/qemu-system-x86_64"),
            "vhost_device_vsock": str(prefix / "bin/vhost-device-vsock"),
            "state_dir": str(self.root / "parma"),
            "data_dir": str(self.data),
            # Formatting takes time under emulation; a gigabyte is plenty here.
            "scratch_mib": 1024,
            "policy_dirs": [str(self.root / "policies")],
            **settings,
        }
        (self.root / "policies").mkdir()
        self.parma_config = self.root / "parma.toml"
        self.parma_config.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()))
        bin_dir = self.root / "bin"
        bin_dir.mkdir()
        launcher.write_launcher(bin_dir / "containerd-shim-parma-v2", config=self.parma_config)

    def environment(self) -> dict[str, str]:
        search = [self.root / "bin", *self._programs, self.binaries, paths.PREFIX / "bin"]
        path = ":".join([*map(str, search), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
        return {"PATH": path, "HOME": str(self.root), "LANG": "C.UTF-8", **self._added_environment}

    def start(self, timeout: float = 60) -> None:
        """Returns once the daemon answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, self.binaries / "containerd", "--config", self.root / "config.toml"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if _accepts(self.address) and self.ctr("version", timeout=timeout).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"containerd did not start:\n{self.log.read_text()[-4000:]}")

    def command(self, *arguments: str | Path) -> list[str]:
        """A full ``ctr`` command line for this daemon."""
        return [str(self.binaries / "ctr"), "--address", str(self.address), *map(str, arguments)]

    def ctr(self, *arguments: str | Path, timeout: float = 120, stdin: bytes | None = None) -> Completed:
        """Runs ``ctr``; nothing is raised for its exit code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
        )
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def popen(self, *arguments: str | Path, **options: Any) -> Client:
        """Starts ``ctr`` and returns at once."""
        return Client(self.command(*arguments), env=self.environment(), **options)

    def kill(self) -> None:
        """kill -9, as a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout: float = 30) -> None:
        """SIGTERM, as an upgrade: tasks go on."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def remove_containers(self) -> None:
        """Kills and deletes every task and container that is still known."""
        for identity in self.ctr("task", "list", "-q").stdout.split():
            self.ctr("task", "delete", "--force", identity)
        for identity in self.ctr("container", "list", "-q").stdout.split():
            self.ctr("container", "delete", identity)

    def close(self) -> None:
        """Stops the daemon and removes its directory; a mount that will not go is an error, not a leak."""
        if self.process is not None:
            self.remove_containers()
            self.stop()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            target = line.split()[1]
            if target.startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", target], check=True)
        shutil.rmtree(self.root)

    def __enter__(self) -> PrivateContainerd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _accepts(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(address)) == 0


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
