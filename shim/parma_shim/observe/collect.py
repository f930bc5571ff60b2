# SPDX-License-Identifier: Apache-2.0
"""From a shim's state to metrics. Reading them costs the guest one bounded question per running container."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.observe import exposition
from parma_shim.observe.exposition import Family
from parma_shim.observe.registry import Histogram, Labels, Registry
from parma_wire import guest_pb2
from parma_wire.errors import ParmaError

GUEST_SECONDS: Final = 1.0
"""For all containers together: a scrape does not wait for a guest that hangs."""

_HELP: Final[Mapping[str, tuple[str, str]]] = {
    "parma_shim_rpc_duration_seconds": ("histogram", "Calls of containerd to the shim."),
    "parma_shim_rpc_failures_total": ("counter", "Calls of containerd that failed, by google.rpc.Code."),
    "parma_shim_rpc_waits_total": ("counter", "Waits of containerd that have ended."),
    "parma_shim_guest_call_duration_seconds": ("histogram", "Calls of the shim to the guest."),
    "parma_shim_guest_call_failures_total": ("counter", "Calls to the guest that failed, by google.rpc.Code."),
    "parma_shim_guest_call_waits_total": ("counter", "Waits for processes of the guest that have ended."),
    "parma_shim_denials_total": ("counter", "Requests that the execution policy denied, by request to the guest."),
    "parma_shim_streams_opened_total": ("counter", "Streams of processes opened."),
    "parma_shim_streams_closed_total": ("counter", "Streams of processes closed."),
    "parma_shim_stream_bytes_total": ("counter", "Bytes of processes' streams passed on."),
}
"""What the registry counts: kind and help by name."""


Stats = Callable[[str, float], guest_pb2.StatsResponse]
"""The guest's word on a container, by its id there, until a deadline (``time.monotonic``). Raises ParmaError."""


class View(NamedTuple):
    """What a shim knows without asking anybody."""

    running: Mapping[str, str]
    """containerd's id of each running container -> its id in the guest."""

    containers: int
    boot: Mapping[str, float]
    """Milliseconds of each part of the VM's start."""

    vm_pid: int
    """0 when there is no VM."""

    vm_memory_mib: int
    log_lines_lost: int
    events_lost: int
    stats: Stats


def text(view: View, registry: Registry, common: Labels) -> str:
    """The exposition of one shim; ``common`` names it."""
    return exposition.render([*_counted(registry), *_state(view), *_guest(view)], common)


def _counted(registry: Registry) -> list[Family]:
    counted = registry.snapshot()
    families = []
    for name, (kind, help_text) in _HELP.items():
        values: dict[Labels, float | Histogram] = {**counted.counters.get(name, {}), **counted.histograms.get(name, {})}
        families.append(Family(name, kind, help_text, values))
    return families


def _state(view: View) -> list[Family]:
    phases: dict[Labels, float | Histogram] = {
        (("phase", name),): milliseconds / 1000 for name, milliseconds in view.boot.items()
    }
    return [
        Family("parma_shim_boot_phase_seconds", "gauge", "Parts of the VM's start, in order.", phases),
        _gauge("parma_shim_containers", "Containers, running or not.", view.containers),
        _gauge("parma_shim_vm_running", "1 while there is a VM.", 1 if view.vm_pid else 0),
        _gauge("parma_shim_vm_memory_bytes", "Memory that the VM was given.", view.vm_memory_mib << 20),
        _gauge("parma_shim_vm_resident_memory_bytes", "Host memory that QEMU holds.", resident_bytes(view.vm_pid)),
        _gauge("parma_shim_resident_memory_bytes", "Host memory that the shim holds.", resident_bytes("self")),
        _counter("parma_shim_log_lines_lost_total", "Lines that found containerd's log full.", view.log_lines_lost),
        _counter("parma_shim_events_lost_total", "Events that containerd did not take.", view.events_lost),
    ]


def _guest(view: View) -> list[Family]:
    memory: dict[Labels, float | Histogram] = {}
    processor: dict[Labels, float | Histogram] = {}
    deadline = time.monotonic() + GUEST_SECONDS
    for container, guest_id in view.running.items():
        try:
            stats = view.stats(guest_id, deadline)
        except ParmaError:
            continue  # gone by now, not allowed, or a guest that hangs: no value is better than an old one
        labels = (("container", container),)
        memory[labels] = stats.memory_usage
        processor[labels] = stats.cpu_usage_us / 1e6
    return [
        Family("parma_guest_container_memory_bytes", "gauge", "Memory in use in the guest, as it says.", memory),
        Family("parma_guest_container_cpu_seconds_total", "counter", "Processor time, as the guest says.", processor),
    ]


def resident_bytes(pid: int | str) -> int:
    """VmRSS of a process; 0 when there is none."""
    if not pid:
        return 0
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)


def _gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, "gauge", help_text, {(): value})


def _counter(name: str, help_text: str, value: float) -> Family:
    return Family(name, "counter", help_text, {(): value})
