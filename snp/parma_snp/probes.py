# SPDX-License-Identifier: Apache-2.0
"""Can this host launch SEV-SNP guests? Each requirement is probed by name and judged by itself.

Sources: AMD publication 24594 (CPUID 8000001F); Linux KVM API (KVM_CAP_VM_TYPES); QEMU ``sev-snp-guest``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from parma_snp.errors import SnpError
from parma_snp.host import CPUID_EXTENDED_MAXIMUM, CPUID_MEMORY_ENCRYPTION, Host, ThisHost

CheckStatus = Literal["ok", "warn", "fail", "skip"]
_KVM_X86_SNP_VM: Final = 4
_MIN_KERNEL: Final = (6, 11)
_MIN_QEMU: Final = (9, 1)


@dataclass(frozen=True)
class Check:
    """One requirement. ``skip`` means that it could not be examined; ``fix`` is empty for ``ok``."""

    id: str
    status: CheckStatus
    evidence: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """The check as a JSON object."""
        return {"id": self.id, "status": self.status, "evidence": self.evidence, "fix": self.fix}


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


def cbitpos(host: Host | None = None) -> int:
    """The C-bit position QEMU must be told; it differs between processors. Raises SnpError ``host.cbitpos``."""
    found = read_memory_encryption(host or ThisHost())
    if found is None or not found.sev_snp:
        raise SnpError(
            "host.cbitpos",
            "this processor has no SEV-SNP" if found else "CPUID cannot be read",
            hint="" if found else "as root: modprobe cpuid",
        )
    return found.cbitpos


def parse_version(text: str) -> tuple[int, int] | None:
    """The first MAJOR.MINOR in a text."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _check_processor(host: Host) -> Check:
    name = "cpu.sev_snp"
    found = read_memory_encryption(host)
    if found is not None:
        evidence = f"CPUID 8000001F: SEV-SNP {'yes' if found.sev_snp else 'no'}, C-bit {found.cbitpos}"
        return Check(name, "ok", evidence) if found.sev_snp else Check(name, "fail", evidence, _FIX_PROCESSOR)
    flags = re.search(r"^flags\s*:(.*)$", host.text("/proc/cpuinfo") or "", re.MULTILINE)
    if flags is None:
        return Check(name, "skip", "neither CPUID nor /proc/cpuinfo can be read", "as root: modprobe cpuid")
    if "sev_snp" in flags[1].split():
        return Check(name, "warn", "/proc/cpuinfo lists sev_snp; the C-bit is unknown", "as root: modprobe cpuid")
    return Check(name, "fail", "/proc/cpuinfo does not list sev_snp", _FIX_PROCESSOR)


_FIX_PROCESSOR: Final = "needs EPYC Milan or later, with SMEE, SEV-SNP and SNP memory coverage enabled in the BIOS"


def _check_asids(host: Host) -> Check:
    name = "cpu.asids"
    found = read_memory_encryption(host)
    if found is None or not found.sev_snp:
        return Check(name, "skip", "no SEV-SNP")
    evidence = f"{found.snp_asids} SNP guests at once"
    fix = "in the BIOS, raise 'Minimum SEV non-ES ASID'"
    return Check(name, "ok", evidence) if found.snp_asids else Check(name, "fail", evidence, fix)


def _check_kernel(host: Host) -> Check:
    release = host.kernel_release()
    version = parse_version(release)
    if "cloud-amd64" in release:
        return Check("kernel.version", "fail", f"Linux {release}", "Debian's cloud kernels are for guests only")
    if version is not None and version >= _MIN_KERNEL:
        return Check("kernel.version", "ok", f"Linux {release}")
    return Check("kernel.version", "fail", f"Linux {release}", "needs Linux 6.11 or later")


def _check_kvm_parameter(host: Host) -> Check:
    name, path = "kvm.sev_snp", "/sys/module/kvm_amd/parameters/sev_snp"
    value = (host.text(path) or "").strip()
    if value == "Y":
        return Check(name, "ok", f"{path} is Y")
    if not value:
        return Check(name, "fail", f"{path} does not exist", "load kvm_amd; the kernel needs CONFIG_KVM_AMD_SEV")
    fix = "enable SEV-SNP in the BIOS; kvm_amd must be loaded after ccp; `dmesg | grep -i sev` names the reason"
    return Check(name, "fail", f"{path} is {value}", fix)


def _check_vm_types(host: Host) -> Check:
    name = "kvm.vm_types"
    types = host.kvm_vm_types()
    if types is None:
        return Check(name, "fail", "/dev/kvm cannot be opened or asked", "run as root or in the group kvm")
    evidence = f"KVM_CAP_VM_TYPES is {types:#x}"
    if types & 1 << _KVM_X86_SNP_VM:
        return Check(name, "ok", evidence)
    return Check(name, "fail", f"{evidence}: no SNP guests (bit 4)", "see kvm.sev_snp")


def _check_device(host: Host) -> Check:
    name, path = "dev.sev", "/dev/sev"
    problem = host.openable(path)
    if problem is None:
        return Check(name, "fail", f"{path} does not exist", "load the module ccp; give the container the device")
    if problem:
        return Check(name, "fail", f"{path}: {problem}", "run as root, or give the group kvm access by udev")
    return Check(name, "ok", f"{path} can be opened")


def _check_iommu(host: Host) -> Check:
    name = "iommu"
    if not host.names("/sys/class/iommu"):
        return Check(name, "fail", "no IOMMU is active", "enable the IOMMU in the BIOS")
    cmdline = (host.text("/proc/cmdline") or "").split()
    passthrough = [word for word in cmdline if word in ("iommu=pt", "iommu.passthrough=1", "iommu.passthrough=on")]
    if passthrough:
        return Check(name, "fail", f"kernel command line: {passthrough[0]}", "SNP needs the IOMMU translating")
    return Check(name, "ok", "active and translating")


def _check_vsock(host: Host) -> Check:
    name, path = "dev.vhost_vsock", "/dev/vhost-vsock"
    problem = host.openable(path)
    if problem == "":
        return Check(name, "ok", f"{path} can be opened")
    evidence = f"{path} does not exist" if problem is None else f"{path}: {problem}"
    return Check(name, "warn", evidence, "load the module vhost_vsock, or use vhost-device-vsock")


def _check_qemu_version(host: Host) -> Check:
    name = "qemu.version"
    text = host.qemu("--version")
    if text is None:
        return Check(name, "fail", "QEMU cannot be run", "install qemu-system-x86 9.1 or later")
    first = text.strip().split("\n")[0]
    version = parse_version(first)
    if version is not None and version >= _MIN_QEMU:
        return Check(name, "ok", first)
    return Check(name, "fail", first, "needs QEMU 9.1 or later")


def _check_qemu_object(host: Host) -> Check:
    name = "qemu.sev_snp_guest"
    text = host.qemu("-object", "help")
    if text is None:
        return Check(name, "skip", "QEMU cannot be run")
    if re.search(r"^\s*sev-snp-guest\b", text, re.MULTILINE):
        return Check(name, "ok", "QEMU has the object sev-snp-guest")
    return Check(name, "fail", "QEMU has no object sev-snp-guest", "use a QEMU built for x86-64 with KVM")


_CHECKS: Final[tuple[Callable[[Host], Check], ...]] = (
    _check_processor,
    _check_asids,
    _check_kernel,
    _check_iommu,
    _check_kvm_parameter,
    _check_vm_types,
    _check_device,
    _check_vsock,
    _check_qemu_version,
    _check_qemu_object,
)


def check_firmware(firmware: Path) -> Check:
    """Whether the firmware will hold the kernel to its measured hash."""
    from parma_snp.measure import has_hash_table

    name = "firmware.hash_table"
    fix = "use OVMF.amdsev.fd (Debian: ovmf-amdsev)"
    try:
        present = has_hash_table(firmware)
    except SnpError as error:
        return Check(name, "fail", error.message, fix)
    if present:
        return Check(name, "ok", f"{firmware} checks kernel, initrd and command line")
    return Check(name, "fail", f"{firmware} has no SEV hash table", fix)


def probe_host(host: Host | None = None, *, qemu: Path | None = None, firmware: Path | None = None) -> list[Check]:
    """Examine every requirement of ``tee = "snp"`` that does not need a launch.

    ``qemu`` and ``firmware`` are the files that will be used; without ``firmware`` that check is left out.
    """
    target = host if host is not None else ThisHost(qemu)
    checks = [check(target) for check in _CHECKS]
    return [*checks, check_firmware(firmware)] if firmware is not None else checks


def require_snp_host(checks: list[Check]) -> None:
    """Raise SnpError ``host.unsuitable`` naming every requirement that is not met; there is no fallback."""
    failed = [check for check in checks if check.status == "fail"]
    if failed:
        raise SnpError(
            "host.unsuitable",
            "this host cannot launch SEV-SNP guests: " + "; ".join(f"{check.id}: {check.evidence}" for check in failed),
            hint=failed[0].fix,
        )
