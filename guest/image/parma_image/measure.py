# SPDX-License-Identifier: Apache-2.0
"""The launch measurements of an image, for every shape of VM that the shim starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from parma_image.manifest import Measurement

VCPU_TYPE: Final = "EPYC-v4"
VCPUS: Final = (1, 2, 4, 8, 16, 32, 64)
_GUEST_FEATURES: Final = 1  # SNPActive, what KVM sets from Linux 6.10 on


def table(firmware: Path, kernel: Path, initrd: Path, cmdlines: Mapping[str, str]) -> tuple[Measurement, ...]:
    """One measurement for each tee and number of CPUs."""
    return tuple(
        Measurement(tee, VCPU_TYPE, vcpus, launch_digest(firmware, kernel, initrd, cmdline, vcpus))
        for tee, cmdline in cmdlines.items()
        for vcpus in VCPUS
    )


def launch_digest(firmware: Path, kernel: Path, initrd: Path, cmdline: str, vcpus: int) -> str:
    """The SEV-SNP launch digest in hex."""
    from sevsnpmeasure import guest, vcpu_types
    from sevsnpmeasure.sev_mode import SevMode

    digest: bytes = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        vcpus,
        vcpu_types.CPU_SIGS[VCPU_TYPE],
        str(firmware),
        str(kernel),
        str(initrd),
        cmdline,
        _GUEST_FEATURES,
    )
    return digest.hex()
