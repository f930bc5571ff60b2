# SPDX-License-Identifier: Apache-2.0
"""Emulation is for machines without SEV-SNP: where the real thing is there, it is a mistake until said twice."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from parma_shim.vm.settings import VmSettings
from parma_wire.errors import FailedPrecondition

SEV_SNP: Final = Path("/sys/module/kvm_amd/parameters/sev_snp")
"""What KVM says of itself: "Y" where it can launch SEV-SNP guests."""
ALLOWED: Final = "allowed"


def refuse_needless_emulation(tee: str, settings: VmSettings, *, parameter: Path | None = None) -> None:
    """Raises FailedPrecondition for tee = "emulated" on a machine with SEV-SNP, unless the configuration allows it.

    ``parameter`` is another file than :data:`SEV_SNP`, for tests.
    """
    if tee != "emulated" or settings.emulated_on_snp == ALLOWED:
        return
    try:
        real = (parameter or SEV_SNP).read_text().strip() == "Y"
    except OSError:
        return
    if real:
        raise FailedPrecondition(
            "tee = 'emulated' on a machine with SEV-SNP: the containers would be protected from nobody",
            expected="tee = 'snp'",
            hint="emulated_on_snp = 'allowed' in the configuration, to try something out",
        )
