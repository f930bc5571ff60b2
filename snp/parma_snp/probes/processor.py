# SPDX-License-Identifier: Apache-2.0
"""Probes of the processor, its BIOS settings and its secure processor's firmware.

Sources: AMD publications 24593 (SYSCFG, RMP_BASE), 24594 (CPUID 8000001F) and 56860 (SNP_PLATFORM_STATUS); the
messages of Linux 6.11 and later.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_snp.cpuid import cpuid
from parma_snp.errors import SnpError
from parma_snp.host import CPUID_EXTENDED_MAXIMUM, CPUID_MEMORY_ENCRYPTION, Host
from parma_snp.report import Product, product_of

MIN_API: Final = (1, 51)
GOOD_API: Final = (1, 55)
_MSR_RMP_BASE: Final = 0xC0010132
_MSR_RMP_END: Final = 0xC0010133
_HYPERVISOR: Final = 1 << 31
_CBIT_RANGE: Final = range(32, 64)


class MemoryEncryption(NamedTuple):
    """CPUID 8000001F taken apart."""

    sev: bool
    sev_es: bool
    sev_snp: bool
    cbitpos: int
    phys_bits_reduction: int
    asids: int
    min_sev_asid: int

    @property
    def snp_asids(self) -> int:
        """How many SNP guests can run at once (they share the ASIDs of SEV-ES)."""
        return max(self.min_sev_asid - 1, 0)


def decode_memory_encryption(registers: tuple[int, int, int, int]) -> MemoryEncryption:
    """From EAX, EBX, ECX, EDX of leaf 8000001F."""
    eax, ebx, ecx, edx = registers
    return MemoryEncryption(
        sev=bool(eax & 1 << 1),
        sev_es=bool(eax & 1 << 3),
        sev_snp=bool(eax & 1 << 4),
        cbitpos=ebx & 0x3F,
        phys_bits_reduction=ebx >> 6 & 0x3F,
        asids=ecx,
        min_sev_asid=edx,
    )


def read_memory_encryption(host: Host) -> MemoryEncryption | None:
    """The processor's memory encryption; None when CPUID cannot be read or has no such leaf."""
    maximum = host.cpuid(CPUID_EXTENDED_MAXIMUM)
    if maximum is None or not CPUID_MEMORY_ENCRYPTION <= maximum[0] <= 0x8000FFFF:
        return None
    registers = host.cpuid(CPUID_MEMORY_ENCRYPTION)
    return None if registers is None else decode_memory_encryption(registers)


def _family_and_model(signature: int) -> tuple[int, int]:
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family == 0xF:
        family += signature >> 20 & 0xFF
        model |= (signature >> 16 & 0xF) << 4
    return family, model


def this_product() -> Product:
    """The product of the processor this runs on. Raises SnpError ``host.product``."""
    features = cpuid(1)
    product = product_of(*_family_and_model(features[0])) if features is not None else None
    if product is None:
        raise SnpError("host.product", "this processor is none of Milan, Genoa and Turin")
    return product


NOT_AMD: Final = Problem(
    "fail",
    "the processor is by {vendor}",
    "SEV-SNP is a feature of AMD EPYC processors.",
    "use a machine with EPYC 7003 (Milan) or later",
)
OTHER_PRODUCT: Final = Problem(
    "warn",
    "family {family:#x}, model {model:#x} is none of Milan, Genoa and Turin",
    "Reports of this processor cannot be verified: its root certificate is not among the pinned ones.",
    "use EPYC 7003 (Milan), 8004 or 9004 (Genoa), or 9005 (Turin)",
)
NESTED: Final = Problem(
    "warn",
    "{product}, seen from inside a virtual machine",
    "The hypervisor below decides what of SEV-SNP is passed through; most pass through nothing.",
    "run on the bare machine, or on a cloud instance whose provider documents nested SEV-SNP",
)
NO_PRODUCT: Final = Problem("skip", "CPUID cannot be read", "Not an x86-64 machine.", "use an x86-64 machine")


def _examine_product(host: Host) -> Outcome:
    vendor_leaf, features = host.cpuid(0), host.cpuid(1)
    if vendor_leaf is None or features is None:
        return NO_PRODUCT.found()
    vendor = struct.pack("<III", vendor_leaf[1], vendor_leaf[3], vendor_leaf[2]).decode("ascii", "replace")
    if vendor != "AuthenticAMD":
        return NOT_AMD.found(vendor=vendor.strip() or "nobody")
    family, model = _family_and_model(features[0])
    product = product_of(family, model)
    if features[2] & _HYPERVISOR:
        return NESTED.found(product=product or "AMD")
    return ok(f"AMD EPYC, {product}") if product else OTHER_PRODUCT.found(family=family, model=model)


NO_SNP: Final = Problem(
    "fail",
    "CPUID 8000001F says: SEV {sev}, SEV-ES {es}, SEV-SNP no",
    "The processor is older than Milan, or the BIOS switches SEV-SNP off.",
    "in the BIOS enable SMEE, SEV, SEV-ES, SEV-SNP and 'SNP Memory Coverage'",
)
NO_LEAF: Final = Problem(
    "fail",
    "CPUID has no leaf 8000001F",
    "The processor has no memory encryption, or a hypervisor hides it.",
    "use EPYC 7003 (Milan) or later, on the bare machine",
)


def _examine_snp(host: Host) -> Outcome:
    found = read_memory_encryption(host)
    if found is None:
        return NO_LEAF.found()
    if not found.sev_snp:
        return NO_SNP.found(sev="yes" if found.sev else "no", es="yes" if found.sev_es else "no")
    return ok("CPUID 8000001F says: SEV yes, SEV-ES yes, SEV-SNP yes")


NO_CBIT: Final = Problem(
    "fail",
    "CPUID 8000001F gives {cbitpos} as the position of the C-bit",
    "QEMU must be told which bit of an address marks encrypted memory, and gets it from here.",
    "update the BIOS; under a hypervisor, have it pass the leaf through unchanged",
)
CBIT_SKIPPED: Final = Problem("skip", "no SEV-SNP", "See cpu.sev_snp.", "see cpu.sev_snp")


def _examine_cbit(host: Host) -> Outcome:
    found = read_memory_encryption(host)
    if found is None or not found.sev_snp:
        return CBIT_SKIPPED.found()
    if found.cbitpos not in _CBIT_RANGE:
        return NO_CBIT.found(cbitpos=found.cbitpos)
    return ok(f"C-bit {found.cbitpos}, physical addresses {found.phys_bits_reduction} bits shorter")


NO_ASIDS: Final = Problem(
    "fail",
    "no address space identifiers are set aside for SEV-ES and SEV-SNP",
    "Each SNP guest needs an identifier below 'minimum SEV non-ES ASID'; the BIOS leaves none.",
    "in the BIOS raise 'Minimum SEV non-ES ASID' to the number of guests plus one",
)


def _examine_asids(host: Host) -> Outcome:
    found = read_memory_encryption(host)
    if found is None or not found.sev_snp:
        return CBIT_SKIPPED.found()
    return ok(f"{found.snp_asids} SNP guests at once") if found.snp_asids else NO_ASIDS.found()


NO_RMP: Final = Problem(
    "fail",
    "no memory is reserved for the reverse map table ({source})",
    "SEV-SNP keeps the owner of every page in a table that the BIOS must set memory aside for.",
    "in the BIOS enable 'SNP Memory (RMP Table) Coverage'",
)
RMP_UNKNOWN: Final = Problem(
    "skip",
    "neither the processor's registers nor the kernel's messages tell",
    "Only root may read them, and messages of the boot are lost in time; kvm.vm_types decides in the end.",
    "run as root, with the module msr loaded",
)


def _examine_rmp(host: Host) -> Outcome:
    base, end = host.msr(_MSR_RMP_BASE), host.msr(_MSR_RMP_END)
    if base is not None and end is not None:
        if not end > base:
            return NO_RMP.found(source="MSR RMP_BASE, RMP_END")
        return ok(f"reverse map table at {base:#x} to {end:#x}")
    log = host.kernel_log() or ""
    if match := re.search(r"RMP table physical range \[?(.*?)\]?$", log, re.MULTILINE):
        return ok(f"reverse map table at {match[1]}")
    if "RMP table has not been reserved" in log:
        return NO_RMP.found(source="kernel's messages")
    return RMP_UNKNOWN.found()


OLD_API: Final = Problem(
    "fail",
    "SEV firmware {api} is too old for SEV-SNP",
    "Linux needs API 1.51 or later of the secure processor.",
    "update the SEV firmware: a new BIOS, or AMD's firmware file in /lib/firmware/amd",
)
AGEING_API: Final = Problem(
    "warn",
    "SEV firmware {api}",
    "Firmware before 1.55 has known vulnerabilities; a relying party with a minimum TCB refuses its reports.",
    "update the SEV firmware: a new BIOS, or AMD's firmware file in /lib/firmware/amd",
)
API_UNKNOWN: Final = Problem(
    "skip",
    "neither /dev/sev nor the kernel's messages tell the firmware's version",
    "Only root may read them, and messages of the boot are lost in time.",
    "run as root",
)


def _examine_api(host: Host) -> Outcome:
    api = _api_version(host)
    if api is None:
        return API_UNKNOWN.found()
    text = f"API {api[0]}.{api[1]}"
    if api < MIN_API:
        return OLD_API.found(api=text)
    return ok(f"SEV firmware {text}") if api >= GOOD_API else AGEING_API.found(api=text)


def _api_version(host: Host) -> tuple[int, int] | None:
    status = host.snp_platform_status()
    if status is not None:
        return status.api
    match = re.search(r"SEV-SNP API:(\d+)\.(\d+)", host.kernel_log() or "")
    return (int(match[1]), int(match[2])) if match else None


PROBES: Final[tuple[Probe[Host], ...]] = (
    Probe(
        "cpu.product",
        "an AMD EPYC processor, Milan or later",
        _examine_product,
        (NOT_AMD, OTHER_PRODUCT, NESTED, NO_PRODUCT),
    ),
    Probe("cpu.sev_snp", "SEV-SNP in the processor, enabled by the BIOS", _examine_snp, (NO_SNP, NO_LEAF)),
    Probe("cpu.cbit", "a C-bit position", _examine_cbit, (NO_CBIT, CBIT_SKIPPED)),
    Probe("cpu.asids", "address space identifiers for SNP guests", _examine_asids, (NO_ASIDS, CBIT_SKIPPED)),
    Probe("bios.rmp", "memory reserved for the reverse map table", _examine_rmp, (NO_RMP, RMP_UNKNOWN)),
    Probe("sev.firmware", "SEV firmware 1.55 or later", _examine_api, (OLD_API, AGEING_API, API_UNKNOWN)),
)
