# SPDX-License-Identifier: Apache-2.0
"""How large a VM is made for a container or pod: its limits if it has any, else the configured defaults.

The number of vCPUs enters the launch measurement, so it is one of the shapes that the guest image publishes one for.
Memory does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

OVERHEAD_MIB: Final = 256
"""For the guest's kernel, initrd and enforcer, on top of a container's limit."""

DEFAULT_SHAPES: Final = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of vCPUs where no measurement restricts them."""

_ROUND_MIB: Final = 64
_MAX_MIB: Final = 1 << 24
_MIB: Final = 1 << 20
_POD_MEMORY: Final = "io.kubernetes.cri.sandbox-memory"
_POD_QUOTA: Final = "io.kubernetes.cri.sandbox-cpu-quota"
_POD_PERIOD: Final = "io.kubernetes.cri.sandbox-cpu-period"
_POD_SHARES: Final = "io.kubernetes.cri.sandbox-cpu-shares"
_SHARES_OF_A_CPU: Final = 1024


class Size(NamedTuple):
    """A VM's size."""

    vcpus: int
    memory_mib: int


def size_of(
    oci: Mapping[str, Any], *, default_vcpus: int, default_memory_mib: int, extra_mib: int, shapes: Sequence[int]
) -> Size:
    """The size for the first container of a group; ``extra_mib`` is for a writable layer in guest memory.

    More vCPUs than the largest shape are cut down to it: a limit is an upper bound, not a demand.
    """
    memory, quota, period = _limits(oci)
    wanted = math.ceil(quota / period) if quota > 0 and period > 0 else max(default_vcpus, _requested_cpus(oci))
    mib = math.ceil(memory / _MIB) + OVERHEAD_MIB if memory > 0 else default_memory_mib
    total = math.ceil((mib + extra_mib) / _ROUND_MIB) * _ROUND_MIB
    return Size(_shape(wanted, shapes or DEFAULT_SHAPES), min(total, _MAX_MIB))


def _requested_cpus(oci: Mapping[str, Any]) -> int:
    """What a pod without a limit asks for at least."""
    shares = str((oci.get("annotations") or {}).get(_POD_SHARES, ""))
    return math.ceil(int(shares) / _SHARES_OF_A_CPU) if shares.isdecimal() else 0


def _shape(wanted: int, shapes: Sequence[int]) -> int:
    ordered = sorted(shapes)
    return next((shape for shape in ordered if shape >= wanted), ordered[-1])


def _limits(oci: Mapping[str, Any]) -> tuple[int, int, int]:
    """Memory in bytes, CPU quota and period in microseconds; 0 for none. A pod's sums stand in its annotations."""
    annotations = oci.get("annotations") or {}
    if _POD_MEMORY in annotations or _POD_QUOTA in annotations:
        found = (annotations.get(key, "") for key in (_POD_MEMORY, _POD_QUOTA, _POD_PERIOD))
        memory, quota, period = (int(text) if str(text).isdecimal() else 0 for text in found)
        return memory, quota, period
    resources = (oci.get("linux") or {}).get("resources") or {}
    cpu = resources.get("cpu") or {}
    memory = (resources.get("memory") or {}).get("limit") or 0
    return int(memory), int(cpu.get("quota") or 0), int(cpu.get("period") or 0)
