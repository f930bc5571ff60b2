# SPDX-License-Identifier: Apache-2.0
"""Can this host launch SEV-SNP guests? Each requirement is probed by name and judged by itself.

The same probes are behind ``parma doctor`` and behind every launch with ``tee = "snp"``: there is no fallback.
"""

from __future__ import annotations

from typing import Final

from parma_snp.checks import Check, Probe, require, run_all
from parma_snp.errors import SnpError
from parma_snp.host import Host
from parma_snp.probes import kernel, launcher, processor
from parma_snp.probes.processor import read_memory_encryption

PROBES: Final[tuple[Probe[Host], ...]] = (*processor.PROBES, *kernel.PROBES, *launcher.PROBES)
"""From the processor upwards: the first that fails is where to begin."""


def probe_host(host: Host) -> list[Check]:
    """Examine every requirement of ``tee = "snp"`` that does not need a launch."""
    return run_all(PROBES, host)


def require_snp_host(host: Host) -> None:
    """Raise SnpError ``host.unsuitable`` that names the first requirement that is not met."""
    require(probe_host(host), "this host cannot launch SEV-SNP guests")


def cbitpos(host: Host) -> int:
    """The C-bit position QEMU must be told; it differs between processors. Raises SnpError ``host.cbitpos``."""
    found = read_memory_encryption(host)
    if found is None or not found.sev_snp:
        raise SnpError("host.cbitpos", "this processor has no SEV-SNP" if found else "CPUID has no leaf 8000001F")
    return found.cbitpos
