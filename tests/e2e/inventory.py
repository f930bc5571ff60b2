# SPDX-License-Identifier: Apache-2.0
"""What exists on the machine that a container could leave behind: taken before and after, and compared.

Only what belongs to one private containerd is listed, as other tests may run at the same time on the same machine.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parma_shim.sockets import socket_path
from tests import fake_cni
from tests.e2e.host import Host

SHIM_SOCKETS = Path("/run/containerd/s")
"""Where the shims of containerd before 2.3 have their sockets, those of all daemons of the machine."""

KEPT = ("policies", "bin", "root", "data/layers", "data/emulated", "kubelet", "cni-bin")
"""Directories below the daemon's: what is in them is not a container's."""

NETWORKS = Path("/run/netns")

TASKS = "io.containerd.runtime.v2.task"

SANDBOXES = "io.containerd.sandbox.controller.v1.shim"
CRI = "io.containerd.grpc.v1.cri"
NAMESPACES = ("default", "k8s.io")

COMMON = frozenset(
    {"parma", "data", "data/scratch", f"state/{SANDBOXES}", f"state/{CRI}/sandboxes", f"state/{CRI}/containers"}
    | {f"{top}/{kind}/{name}" for top in ("state", "root") for kind in (TASKS, SANDBOXES) for name in NAMESPACES}
)
"""Directories that the first container makes for all that follow."""

KEPT_FILES = frozenset({"config.toml", "parma.toml", "containerd.log", "verified-images"})
"""Files likewise. So are the files of the accelerator's probe."""


@dataclass(frozen=True)
class Inventory:
    """Each as text that says enough to find it."""

    processes: frozenset[str]
    mounts: frozenset[str]
    sockets: frozenset[str]
    links: frozenset[str]
    networks: frozenset[str]
    files: frozenset[str]
    cgroups: frozenset[str]

    @classmethod
    def take(cls, host: Host) -> Inventory:
        root = str(host.daemon.root)
        return cls(
            processes=frozenset(_processes(root)),
            mounts=frozenset(line for line in Path("/proc/mounts").read_text().splitlines() if root in line),
            sockets=frozenset(_sockets(host)),
            links=frozenset(entry.name for entry in Path("/sys/class/net").iterdir()),
            networks=frozenset(_networks(host)),
            files=frozenset(_files(host.daemon.root)),
            cgroups=frozenset(_cgroups()),
        )

    def since(self, before: Inventory, host: Host) -> dict[str, list[str]]:
        """What is new, by kind. Cgroups are the machine's: those that do not bear the name of one of this daemon's
        containers or pods are other people's."""
        new = {kind: sorted(getattr(self, kind) - getattr(before, kind)) for kind in self.__dataclass_fields__}
        new["cgroups"] = [path for path in new["cgroups"] if host.names & set(Path(path).parts)]
        return {kind: found for kind, found in new.items() if found}


def assert_nothing_left(host: Host, before: Inventory, timeout: float = 60) -> None:
    """Everything that has come since ``before`` goes by itself, soon."""
    deadline = time.monotonic() + timeout
    while (new := Inventory.take(host).since(before, host)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not new, new


def _processes(root: str) -> Iterator[str]:
    """Shims, QEMUs, vsock devices and helpers of this daemon, by their command lines."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if root in command and "/containerd --config" not in command and "/ctr --address " not in command:
                yield command


def _sockets(host: Host) -> Iterator[str]:
    """The shims' sockets, dead or alive, and bound ones below the daemon's directory."""
    for namespace, name in itertools.product(NAMESPACES, host.names):
        path = Path(socket_path(str(SHIM_SOCKETS), str(host.daemon.address), namespace, name))
        if path.exists():
            yield f"{path} of {name}"
    for line in Path("/proc/net/unix").read_text().splitlines():
        path_text = line.split(maxsplit=7)[7:]
        if path_text and path_text[0].startswith((f"{host.state}/", f"{host.daemon.data}/")):
            yield path_text[0]


def _networks(host: Host) -> Iterator[str]:
    """Network namespaces that containerd has made for pods."""
    asked = host.daemon.root / "cni-bin" / fake_cni.NAMESPACES
    for name in sorted(set(asked.read_text().split())) if asked.exists() else ():
        if (NETWORKS / name).exists():
            yield name


def _cgroups() -> Iterator[str]:
    """All of the machine's. One that is removed while they are listed is none: a glob would raise."""
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        yield folder


def _files(root: Path) -> Iterator[str]:
    """Below the state directories of containerd and Parma, and Parma's data but for its caches."""
    for start in (root, root / "root" / TASKS):
        for folder, folders, files in os.walk(start):
            here = Path(folder)
            folders[:] = [name for name in folders if str((here / name).relative_to(root)) not in KEPT]
            for name in (*folders, *files):
                path = str((here / name).relative_to(root))
                if path not in COMMON and name not in KEPT_FILES and not name.startswith("accelerator"):
                    yield path
