# SPDX-License-Identifier: Apache-2.0
"""The host as its user sees it: ``ctr`` with a policy, waiting, and an inventory of what exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devtool import images, paths
from devtool.containerd import RUNTIME, Completed, PrivateContainerd
from parma_image import debian

BUSYBOX = "parma.example/busybox:test"
DEBIAN = "parma.example/debian:test"

RUNC = "io.containerd.runc.v2"


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 180) -> None:
    """Polls, as the other side is a process outside our control; fails with what was awaited."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.1)


def read_terminal(descriptor: int) -> bytes:
    """Empty at the end; a pty reports its other end's departure as EIO."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""


@dataclass
class Host:
    """One private containerd and its images."""

    daemon: PrivateContainerd
    archives: dict[str, Path]
    policies: dict[str, Path] = field(default_factory=dict)
    open_door: bool = False
    """It runs with ``tee = none``, and containers without a policy."""

    names: set[str] = field(default_factory=set)
    """Of the containers that it was ever asked for."""

    @property
    def state(self) -> Path:
        """Parma's state directory of this daemon."""
        return self.daemon.root / "parma"

    def policy(
        self,
        command: Sequence[str],
        *,
        image: str = BUSYBOX,
        execs: Sequence[Sequence[str]] = (),
        extra: Sequence[str] = (),
    ) -> Path:
        """A policy for the image that allows this command and these execs."""
        key = json.dumps([image, command, execs, extra])
        if key not in self.policies:
            path = self.daemon.root / "policies" / f"p{len(self.policies)}.rego"
            self.parma(
                *("policy", "generate", "--image-archive", self.archives[image], "--command", json.dumps(command)),
                *(word for process in execs for word in ("--exec", json.dumps(process))),
                *extra,
                *("--out", path),
            )
            self.policies[key] = path
        return self.policies[key]

    def parma(self, *arguments: str | Path) -> str:
        """The ``parma`` command; an exit code other than 0 fails the test."""
        done = self.parma_result(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def parma_result(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The ``parma`` command, whatever its exit code."""
        environment = {**os.environ, "PARMA_CONFIG": str(self.daemon.parma_config)}
        return subprocess.run(
            [paths.VENV / "bin/parma", *arguments], capture_output=True, text=True, env=environment, timeout=120
        )

    def run_arguments(
        self,
        name: str,
        command: Sequence[str],
        *flags: str,
        policy: Path | None = None,
        image: str = BUSYBOX,
        runtime: str = RUNTIME,
    ) -> list[str]:
        self.names.add(name)
        if runtime == RUNTIME and (policy or not self.open_door):
            policy = policy or self.policy(command, image=image)
            flags = (*flags, "--annotation", f"io.parma.policy-file={policy}")
        return ["run", "--runtime", runtime, *flags, image, name, *command]

    def run(
        self,
        name: str,
        command: Sequence[str],
        *flags: str,
        policy: Path | None = None,
        image: str = BUSYBOX,
        runtime: str = RUNTIME,
        stdin: bytes | None = None,
    ) -> Completed:
        """``ctr run`` with these flags."""
        arguments = self.run_arguments(name, command, *flags, policy=policy, image=image, runtime=runtime)
        return self.daemon.ctr(*arguments, timeout=240, stdin=stdin)

    def exec(self, name: str, exec_id: str, *command: str, stdin: bytes | None = None) -> Completed:
        """``ctr task exec``."""
        return self.daemon.ctr("task", "exec", "--exec-id", exec_id, name, *command, stdin=stdin)

    def status(self, name: str) -> str:
        """RUNNING, STOPPED, PAUSED, ... or "" when there is no such task."""
        for line in self.daemon.ctr("task", "list").stdout.splitlines()[1:]:
            identity, _, state = line.split()
            if identity == name:
                return state
        return ""

    def metrics(self, name: str, *flags: str) -> str:
        """``ctr task metrics``, as soon as the guest has answered within the two seconds that a collector gives it."""
        shown = [""]

        def answered() -> bool:
            done = self.daemon.ctr("task", "metrics", *flags, name)
            shown[0] = done.stdout
            return done.returncode == 0

        wait_until(answered, f"metrics of {name}")
        return shown[0]

    def signal_until_stopped(self, name: str, signal: str = "SIGTERM") -> None:
        """Sends the signal until it has worked: process 1 ignores what it has no handler for yet."""

        def stopped() -> bool:
            self.daemon.ctr("task", "kill", "--signal", signal, name)
            return self.status(name) == "STOPPED"

        wait_until(stopped, "the container to stop")

    def delete_task(self, name: str) -> int:
        """Deletes a stopped task; returns the exit code of its init, which ``ctr`` mentions when it is not 0."""
        done = self.daemon.ctr("task", "delete", name)
        assert done.returncode == 0, done.stderr
        code = re.search(r"non-zero exit code (\d+)", done.stderr)
        return int(code[1]) if code else 0

    def remove(self, name: str) -> None:
        """Deletes task and container, whatever state they are in."""
        self.daemon.ctr("task", "delete", "--force", name)
        self.daemon.ctr("container", "delete", name)


DEBIAN_PACKAGES = (
    *("base-files", "bash", "coreutils", "passwd", "sed", "libacl1", "libattr1", "libc6", "libcap2", "libgmp10"),
    *("libpcre2-8-0", "libselinux1", "libssl3t64", "libsystemd0", "libtinfo6", "libzstd1", "zlib1g"),
)


def debian_userland(destination: Path) -> None:
    """Real Debian packages below layers with whiteouts, an opaque directory, hard links and a replaced file.

    Each layer is stored in another way.
    """
    archive = debian.DebianArchive(paths.ARCHIVE, log=lambda _: None)
    base = images.LayerBuilder()
    for deb in archive.fetch("trixie", DEBIAN_PACKAGES, with_dependencies=False):
        with tempfile.NamedTemporaryFile() as tar:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", deb.path], stdout=tar, check=True)
            base.tar_members(
                Path(tar.name), lambda name: not name.startswith(("./usr/share/locale", "./usr/share/man"))
            )
    base.file("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n")
    base.file("etc/group", b"root:x:0:\ndaemon:x:1:\n")
    for folder in ("opt/old", "opt/kept"):
        base.directory(folder)
    base.file("opt/old/a", b"old a\n")
    base.file("opt/kept/removed", b"removed by the next layer\n")
    base.file("opt/kept/stays", b"stays\n")
    base.hard_link("opt/kept/linked", "opt/kept/stays", mode=0o644)
    base.file("etc/version", b"1\n")
    second = images.LayerBuilder()
    second.file("opt/kept/.wh.removed", b"")
    second.directory("opt/old")
    second.file("opt/old/.wh..wh..opq", b"")
    second.file("opt/old/b", b"new b\n")
    second.file("etc/version", b"2\n")
    third = images.LayerBuilder()
    third.symlink("etc/current", "version")
    third.file("opt/kept/caf\u00e9", b"utf-8 name\n")
    layers = [base.finish(), second.finish(), third.finish()]
    config = images.ImageConfig(cmd=("/bin/bash",), working_dir="/opt")
    images.write_archive(destination, DEBIAN, layers, config, images.Packing)
