# SPDX-License-Identifier: Apache-2.0
"""Predict the launch measurement of a VM from what it boots.

Source: AMD publication 56860, "Launch Digest"; QEMU's kernel-hashes. The digest covers the firmware, the SHA-256 of
kernel, initrd and command line (which the firmware checks before it runs them), and the initial state of every vCPU:
so it depends on their number and model. The work is done by the library sev-snp-measure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from parma_snp.errors import SnpError

DEFAULT_VCPU_TYPE: Final = "EPYC-v4"
VCPU_COUNTS: Final = (1, 2, 4, 8, 16, 32, 64)
# SEV_FEATURES in the vCPUs' initial state: SNPActive only, as KVM since Linux 6.10 launches with SEV_INIT2. Kernels of
# AMD's old development series also set DebugSwap and then measure differently.
GUEST_FEATURES: Final = 1
_MAX_VCPUS: Final = 512
_VERSION: Final = re.compile(r"-v[0-9]+\Z", re.ASCII)


class Measurement(NamedTuple):
    """The launch digest (48 bytes) of one VM shape."""

    vcpu_type: str
    vcpus: int
    digest: bytes


def _library() -> tuple[Any, Any, Any]:
    """The parts of sev-snp-measure we use. Imported late: it is not needed to verify."""
    try:
        from sevsnpmeasure import guest, vcpu_types
        from sevsnpmeasure.sev_mode import SevMode
    except ImportError:
        hint = "install the package sev-snp-measure"
        raise SnpError("measure.library", "measurements cannot be computed here", hint=hint) from None
    return guest, vcpu_types.CPU_SIGS, SevMode.SEV_SNP


def cpu_signature(vcpu_type: str) -> int:
    """Family, model and stepping (CPUID leaf 1, EAX) of one of QEMU's CPU models: all of it that is measured.

    Later versions of a model (``EPYC-Milan-v4``) differ in features and caches only. Raises SnpError
    ``measure.vcpu_type``.
    """
    signatures = _library()[1]
    for name in (vcpu_type, _VERSION.sub("", vcpu_type)):
        if name in signatures:
            return int(signatures[name])
    raise SnpError("measure.vcpu_type", "unknown vCPU model", expected=", ".join(signatures), found=vcpu_type)


def digest_of(
    firmware: Path,
    kernel: Path | None,
    initrd: Path | None,
    cmdline: str,
    vcpus: int,
    vcpu_type: str,
    *,
    guest_features: int = GUEST_FEATURES,
    firmware_digest: str = "",
) -> bytes:
    """The general form of :func:`launch_digest`, for launches that Parma itself would refuse (no kernel).

    ``firmware_digest`` is the result of :func:`firmware_digest`, to save that work for many shapes.
    """
    guest, _, mode = _library()
    signature = cpu_signature(vcpu_type)
    if not 1 <= vcpus <= _MAX_VCPUS:
        raise SnpError("measure.vcpus", "impossible number of vCPUs", expected=f"1..{_MAX_VCPUS}", found=str(vcpus))
    if "\0" in cmdline:
        raise SnpError("measure.cmdline", "the command line contains a NUL; QEMU would cut it there")
    try:
        digest = guest.calc_launch_digest(
            mode,
            vcpus,
            signature,
            str(firmware),
            str(kernel) if kernel else None,
            str(initrd) if initrd else None,
            cmdline,
            guest_features,
            firmware_digest,
        )
    except OSError as error:
        raise SnpError("measure.file", f"cannot read what is to be measured: {error}") from error
    except (ValueError, RuntimeError, AssertionError, LookupError) as error:
        raise _unsuitable(firmware, error) from error
    return bytes(digest)


def _unsuitable(firmware: Path, error: Exception) -> SnpError:
    return SnpError(
        "measure.firmware",
        f"{firmware} cannot be measured: {error}",
        expected="OVMF with SEV-SNP metadata and a kernel hash table (OVMF.amdsev.fd)",
    )


def launch_digest(
    firmware: Path, kernel: Path, initrd: Path, cmdline: str, vcpus: int, vcpu_type: str = DEFAULT_VCPU_TYPE
) -> bytes:
    """The 48-byte MEASUREMENT that a VM launched from these files will report.

    ``cmdline`` is the kernel command line without a terminator. Raises SnpError of the ``measure`` family.
    """
    return digest_of(firmware, kernel, initrd, cmdline, vcpus, vcpu_type)


def firmware_digest(firmware: Path) -> str:
    """Hex of the digest after the firmware's own pages: the costly part that all shapes share."""
    try:
        return bytes(_library()[0].calc_snp_ovmf_hash(str(firmware))).hex()
    except OSError as error:
        raise SnpError("measure.file", f"cannot read the firmware: {error}") from error
    except (ValueError, RuntimeError, AssertionError, LookupError) as error:
        raise _unsuitable(firmware, error) from error


def measurement_table(
    firmware: Path,
    kernel: Path,
    initrd: Path,
    cmdline: str,
    *,
    vcpu_types: Iterable[str] = (DEFAULT_VCPU_TYPE,),
    vcpu_counts: Iterable[int] | None = None,
    guest_features: int = GUEST_FEATURES,
) -> list[Measurement]:
    """The measurement for every shape; what a release publishes. Raises SnpError of the ``measure`` family.

    ``vcpu_counts``: by default those of use with this command line; ACPI is what tells a kernel of further processors.
    """
    shared = firmware_digest(firmware)
    if vcpu_counts is None:
        vcpu_counts = (1,) if "acpi=off" in cmdline.split() else VCPU_COUNTS
    counts = tuple(vcpu_counts)
    return [
        Measurement(
            model,
            count,
            digest_of(
                firmware,
                kernel,
                initrd,
                cmdline,
                count,
                model,
                guest_features=guest_features,
                firmware_digest=shared,
            ),
        )
        for model in vcpu_types
        for count in counts
    ]


def has_hash_table(firmware: Path) -> bool:
    """Whether the firmware checks kernel, initrd and command line against measured hashes.

    Raises SnpError ``measure.file`` or ``measure.firmware``.
    """
    _library()
    from sevsnpmeasure.ovmf import OVMF, SectionType

    try:
        image = OVMF(str(firmware))
        return bool(image.is_sev_hashes_table_supported() and image.has_metadata_section(SectionType.SNP_KERNEL_HASHES))
    except OSError as error:
        raise SnpError("measure.file", f"cannot read the firmware: {error}") from error
    except (ValueError, RuntimeError, AssertionError, LookupError) as error:
        raise _unsuitable(firmware, error) from error
