# SPDX-License-Identifier: Apache-2.0
"""What QEMU, KVM and the secure processor say when a launch fails, and what it means.

The last line is often useless: whatever the cause, QEMU ends with "failed to initialize kvm: Operation not permitted".
Codes of the firmware: AMD publication 56860, "Status Codes".
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Failure(NamedTuple):
    """One message. ``pattern`` finds it in QEMU's output, ``message`` is how it looks there."""

    pattern: str
    message: str
    meaning: str
    fix: str


FAILURES: Final[tuple[Failure, ...]] = (
    Failure(
        r"vm-type SEV-SNP not supported by KVM",
        "vm-type SEV-SNP not supported by KVM",
        "KVM makes no SNP guests: the BIOS, the kernel, or kvm_amd was loaded before ccp.",
        "See `parma doctor`, kvm.vm_types.",
    ),
    Failure(
        r"Failed to open /dev/sev",
        "Failed to open /dev/sev 'No such file or directory'",
        "The secure processor's driver (ccp) is not there, or the container QEMU runs in lacks the device.",
        "See `parma doctor`, sev.device.",
    ),
    Failure(
        r"cbitpos check failed",
        "cbitpos check failed, host '51' requested '47'",
        "The C-bit given to QEMU is not this processor's. Parma reads it from CPUID.",
        "Report it, with the output of `parma doctor --json`.",
    ),
    Failure(
        r"KVM required",
        "cannot set up private guest memory for sev-snp-guest: KVM required",
        "QEMU was told to emulate the processor.",
        'Set accelerator = "auto" or "kvm".',
    ),
    Failure(
        r"SEV-SNP does not support SMM|pflash with kvm requires|SEV-ES guests require in-kernel irqchip",
        "SEV-SNP does not support SMM.",
        "The command line is not the one that Parma builds: is `qemu` a wrapper that adds options?",
        "Point qemu in the configuration to QEMU itself.",
    ),
    Failure(
        r"guest firmware hashes table area is invalid",
        "guest firmware hashes table area is invalid (base=0x0 size=0x0)",
        "The firmware has no hash table, so it would boot any kernel.",
        "Use OVMF.amdsev.fd. See `parma doctor`, firmware.hash_table.",
    ),
    Failure(
        r"(information block|GUID Table block) not found",
        "SEV information block/Firmware GUID Table block not found in pflash rom",
        "The firmware is no OVMF with SEV-SNP metadata.",
        "Use OVMF.amdsev.fd. See `parma doctor`, firmware.hash_table.",
    ),
    Failure(
        r"sev_\w*kvm_init: failed to initialize ret=-16\b",
        "sev_common_kvm_init: failed to initialize ret=-16 fw_error=0 ''",
        "All address space identifiers for SNP guests are in use.",
        "Stop a guest, or raise 'Minimum SEV non-ES ASID' in the BIOS. See `parma doctor`, cpu.asids.",
    ),
    Failure(
        r"sev_\w*kvm_init: failed to initialize ret=-25\b",
        "sev_common_kvm_init: failed to initialize ret=-25 fw_error=0 ''",
        "No address space identifiers are set aside for SNP guests.",
        "Raise 'Minimum SEV non-ES ASID' in the BIOS. See `parma doctor`, cpu.asids.",
    ),
    Failure(
        r"LAUNCH_START ret=-22\b",
        "SNP_LAUNCH_START ret=-22 fw_error=0 ''",
        "KVM refuses the guest policy, which comes from an ID block; or QEMU and kernel are of different series.",
        "Use policy 0x30000 in ID blocks, a released kernel and a released QEMU.",
    ),
    Failure(
        r"LAUNCH_START ret=-25\b",
        "SNP_LAUNCH_START ret=-25",
        "QEMU and the host's kernel speak different versions of the interface: one is of a development series.",
        "Use Linux 6.11 or later and QEMU 9.1 or later, as released.",
    ),
    Failure(
        r"fw_error=7\b",
        "SNP_LAUNCH_START ret=-5 fw_error=7 'Policy is not allowed'",
        "The guest policy asks for a newer SEV firmware than this one, or contradicts the SMT setting.",
        "Update the SEV firmware, or lower the ABI minimum in the ID block's policy.",
    ),
    Failure(
        r"fw_error=10\b",
        "SNP_LAUNCH_FINISH ret=-5 fw_error=10 'Bad signature'",
        "A signature in the ID block does not verify.",
        "parma id-block check FILE; then make it again.",
    ),
    Failure(
        r"fw_error=11\b",
        "SNP_LAUNCH_FINISH ret=-5 fw_error=11 'Bad measurement'",
        "The firmware measured something else than the ID block says: another image, number of vCPUs or CPU model, or "
        "an older kernel that sets DebugSwap.",
        "parma id-block make for this image; with AMD's older kernels, with --sev-features 0x21.",
    ),
    Failure(
        r"fw_error=22\b",
        "SNP_LAUNCH_FINISH ret=-5 fw_error=22 'Invalid parameter'",
        "Old SEV firmware that demands an author key, or a damaged ID block.",
        "Update the SEV firmware, or give `parma id-block make` an --author-key.",
    ),
    Failure(
        r"fw_error=39\b",
        "SNP_LAUNCH_FINISH ret=-5 fw_error=39 'Invalid key'",
        "The ID key or the author key is not a P-384 key as the firmware wants it.",
        "parma id-block check FILE; then make it again.",
    ),
    Failure(
        r"iommu_platform=true is not supported by the device",
        "iommu_platform=true is not supported by the device",
        "The VM has a virtual IOMMU, or a device that only works with unencrypted memory. Parma adds neither.",
        "Point qemu in the configuration to QEMU itself, without added options.",
    ),
    Failure(
        r"CPUID validation failed",
        "SEV-SNP: CPUID validation failed for function 0x..., index: 0x...",
        "The firmware corrected a CPUID value; QEMU tries again with it. A warning, unless the launch then fails.",
        "Nothing; if the launch fails, update QEMU.",
    ),
    Failure(
        r"SEV termination|SNP_TERM|guest-panicked.*sev",
        "SEV termination (reason set 0x..., code 0x...)",
        "The guest ended itself before it could say why: the kernel, initrd or command line is not what was measured, "
        "or the guest's kernel has no SEV-SNP.",
        "parma image verify DIR; then look at console.log in the VM's directory below state_dir.",
    ),
)
"""In the order in which they are looked for: causes before consequences."""


def explain(text: str) -> Failure | None:
    """The first known failure in what QEMU wrote; None for something new."""
    return next((known for known in FAILURES if re.search(known.pattern, text)), None)
