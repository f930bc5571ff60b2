# SPDX-License-Identifier: Apache-2.0
"""The cgroup that containerd chose for the container or pod: the VM and its shim live there, for the host to account.

The shim goes there once its VM runs, and back before the cgroup is removed; what it starts meanwhile goes with it, and
back with it. Where containerd put the shim into a cgroup of its own, it stays in that.
Only accounting: limits of containers are applied inside the guest, and those of a pod kubelet has put on the parent.
OCI runtime specification, ``linux.cgroupsPath``; its systemd form ``slice:prefix:name`` as runc reads it.

Which directories were made, and where the shim was, stands in the VM's directory before, for whoever cleans up
(:func:`parma_shim.vm.cleanup.remove_cgroups`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from parma_shim.vm import cleanup
from parma_wire.errors import Malformed, Unavailable

ROOT: Final = Path("/sys/fs/cgroup")
_ACCOUNTING: Final = frozenset({"cpu", "cpuacct", "memory", "blkio", "pids"})
"""Controllers of version 1 that account. The others (cpuset, devices, ...) would need to be set up before use."""

_ATTEMPTS: Final = 3


def relative_path(cgroups_path: str) -> str:
    """The path below a hierarchy's root. Raises Malformed."""
    parts = cgroups_path.split(":")
    if len(parts) == 3:
        cgroup_slice, prefix, name = parts
        unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        cgroups_path = f"{_slice_path(cgroup_slice or 'system.slice')}/{unit}"
    components = [component for component in cgroups_path.split("/") if component]
    if not components or any(_leads_elsewhere(component) for component in components):
        raise Malformed(f"cgroupsPath {cgroups_path!r} makes no sense", expected="a path, or slice:prefix:name")
    return "/".join(components)


def _leads_elsewhere(component: str) -> bool:
    return component in (".", "..") or "\0" in component or "\n" in component


def _slice_path(name: str) -> str:
    """``a-b.slice`` is below ``a.slice`` (systemd.slice(5)); ``-.slice`` is the root."""
    words = name.removesuffix(".slice").split("-")
    if not any(words):
        return ""
    return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Where processes are accounted: the one hierarchy of version 2, or the accounting ones of version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    found = {path.resolve() for path in root.iterdir() if set(path.name.split(",")) & _ACCOUNTING}
    return sorted(found)


def home(hierarchy: Path, membership: str) -> Path:
    """Where a process is in a hierarchy. ``membership`` is its ``/proc/<pid>/cgroup`` (cgroups(7)).

    That is the hierarchy's root where the process's cgroup cannot be seen from here.
    """
    unified = (hierarchy / "cgroup.controllers").exists()
    wanted = frozenset() if unified else frozenset(hierarchy.name.split(","))
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0") if unified else (frozenset(controllers.split(",")) == wanted):
            found = hierarchy / path.lstrip("/")
            return found if (found / "cgroup.procs").exists() else hierarchy
    return hierarchy


class HostCgroup:
    """The cgroup of one VM, in every hierarchy."""

    def __init__(self, cgroups_path: str, record: Path, root: Path = ROOT, *, shim: int = 0) -> None:
        """
        Args:
            record: the file that names the directories made.
            shim: process id of the shim, if it is to live there as well.

        Raises:
            Malformed: a path that is none.
        """
        path = relative_path(cgroups_path)
        self._record: Final = record
        self._hierarchies: Final = hierarchies(root)
        self._places: Final = [hierarchy / path for hierarchy in self._hierarchies]
        self._root: Final = root
        self._shim: Final = shim

    def enter(self, pids: Iterable[int]) -> None:
        """Makes what is missing and moves the processes there, and the shim.

        Raises Unavailable; what was made is then still recorded.
        """
        try:
            homes = self._homes()
            self._record.write_text("".join(f"{path}{homes.get(path, '')}\n" for path in self._ours()))
            everybody = [*pids, self._shim] if self._shim else list(pids)
            for place in self._places:
                self._enter(place, everybody)
        except OSError as error:
            raise Unavailable(f"cannot use the cgroup {self._places[0]}: {error.strerror}") from error

    def remove(self) -> None:
        """After its processes have ended. What somebody else uses stays. Idempotent."""
        cleanup.remove_cgroups(str(self._record), self._shim)

    def _homes(self) -> dict[Path, str]:
        """What the record says behind each place."""
        if not self._shim:
            return {}
        membership = Path(f"/proc/{self._shim}/cgroup").read_text()
        pairs = zip(self._places, self._hierarchies, strict=True)
        return {place: f"\0{home(hierarchy, membership)}" for place, hierarchy in pairs}

    def _enter(self, place: Path, pids: Sequence[int]) -> None:
        for attempt in reversed(range(_ATTEMPTS)):
            place.mkdir(parents=True, exist_ok=True)
            _enable_controllers(place, self._root)
            try:
                for pid in pids:
                    _move(pid, [place])
            except FileNotFoundError:
                # An earlier container of this name, ending at this moment, has removed it.
                if not attempt:
                    raise
            else:
                return

    def _ours(self) -> list[Path]:
        """The container's own directories, and those above that do not exist yet; the deepest first."""
        found = []
        for place in self._places:
            found.append(place)
            parent = place.parent
            while not parent.exists():
                found.append(parent)
                parent = parent.parent
        return found


def _enable_controllers(place: Path, root: Path) -> None:
    """Version 2 accounts below a directory only for the controllers that it names (cgroups(7))."""
    for parent in reversed(place.parents):
        control = parent / "cgroup.subtree_control"
        if parent.is_relative_to(root) and control.exists():
            for controller in ("cpu", "io", "memory", "pids"):
                with contextlib.suppress(OSError):  # not available here, or not ours to change
                    control.write_text(f"+{controller}")


def _move(pid: int, places: Sequence[Path]) -> None:
    for place in places:
        # A process that has ended already is for others to report, with its reason.
        with contextlib.suppress(ProcessLookupError):
            (place / "cgroup.procs").write_text(f"{pid}")
