# SPDX-License-Identifier: Apache-2.0
"""What a pod with one sleeping container takes of the host's memory: its shim, and whatever runs below that.

Below runc's shim those are the pause container's process and the container's. Below Parma's it is QEMU, whose memory is
told apart: the guest's (a mapping of its own, as far as it was ever touched), code that emulation has translated, and
the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from devtool.bench.host import RUNC
from devtool.bench.memory import memory, shims
from devtool.bench.rows import Row, report
from devtool.containerd import RUNTIME, PrivateContainerd
from devtool.crictl import Crictl

MEMINFO: Final = ("/bin/cat", "/proc/meminfo")
"""What is executed in the pod's container."""

_GUEST_MEMORY: Final = "memfd:memory-backend-memfd"
_REST: Final = 35
"""Seconds: Go's collector returns memory half a minute after the last work; both get the same rest."""


class Memory(NamedTuple):
    """In MiB."""

    rss: float
    pss: float


class Process(NamedTuple):
    """With its memory in MiB."""

    pid: int
    name: str
    rss: float
    pss: float


def measure(crictl: Crictl, daemon: PrivateContainerd, pods: Mapping[str, str], container: str) -> None:
    """Prints each row as it is made.

    Args:
        pods: by runtime, the id of a pod.
        container: Parma's.
    """
    time.sleep(_REST)
    found = {runtime: _processes(daemon, runtime, pod) for runtime, pod in pods.items()}
    (runc, *runc_rest), (parma, *parma_rest) = found[RUNC], found[RUNTIME]
    report(Row("a pod's shim, RSS", "MiB", runc.rss, parma.rss))
    report(Row("a pod's shim, PSS", "MiB", runc.pss, parma.pss))
    everything = {runtime: sum(one.pss for one in processes) for runtime, processes in found.items()}
    report(Row("all of a pod on the host, PSS", "MiB", everything[RUNC], everything[RUNTIME]))
    _say("runc: pause and container, PSS", sum(one.pss for one in runc_rest))
    for one in parma_rest:
        if one.name.startswith("qemu"):
            parts = qemu_parts(Path(f"/proc/{one.pid}/smaps").read_text())
            _say("parma: QEMU without what follows, RSS", parts["rest"].rss)
            _say("parma: QEMU without what follows, PSS", parts["rest"].pss)
            _say("parma: QEMU's translated code (not with KVM)", parts["code"].rss)
            _say("parma: the guest's memory that was touched", parts["guest"].rss)
        else:
            _say(f"parma: {one.name}, PSS", one.pss)
    said = dict(line.split()[:2] for line in crictl("exec", "--sync", container, *MEMINFO).splitlines())
    total, free = (int(said[key]) / 1024 for key in ("MemTotal:", "MemAvailable:"))
    _say("parma: in use in the guest, as it says itself", total - free)
    _say("parma: what the guest has, as it says itself", total)


def _say(name: str, value: float) -> None:
    print(f"{name:44} {value:10.2f} MiB", flush=True)


def _processes(daemon: PrivateContainerd, runtime: str, pod: str) -> list[Process]:
    """The pod's shim, and all below it."""
    (shim,) = (pid for pid in shims(daemon, runtime) if pod in _words(pid))
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    below = [shim]
    for pid in below:
        below += [child for child, parent in parents.items() if parent == pid]
    return [_process(pid) for pid in below]


def _process(pid: int) -> Process:
    held = memory(pid)
    return Process(pid, Path(f"/proc/{pid}/comm").read_text().strip(), held["RSS"], held["PSS"])


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")


def _parent(entry: Path) -> int:
    """0 for a process that is gone meanwhile."""
    try:
        status = (entry / "stat").read_text()
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def qemu_parts(smaps: str) -> dict[str, Memory]:
    """QEMU's memory, from ``/proc/PID/smaps``: the ``guest``'s, ``code`` that emulation has translated, ``rest``."""
    sums = {part: {"Rss:": 0.0, "Pss:": 0.0} for part in ("guest", "code", "rest")}
    part = "rest"
    for line in smaps.splitlines():
        key, value, *_ = line.split()
        if not key.endswith(":"):
            part = "guest" if _GUEST_MEMORY in line else "code" if value == "rwxp" else "rest"
        elif key in sums[part]:
            sums[part][key] += int(value) / 1024
    return {part: Memory(found["Rss:"], found["Pss:"]) for part, found in sums.items()}
