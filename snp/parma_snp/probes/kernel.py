# SPDX-License-Identifier: Apache-2.0
"""Probes of the host's kernel: version, configuration, IOMMU, KVM, the secure processor's device.

Sources: Linux 6.12, Documentation/virt/kvm/api.rst (KVM_CAP_VM_TYPES) and drivers/crypto/ccp.
"""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Final

from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_snp.host import Host

MIN_KERNEL: Final = (6, 11)
_SNP_VM: Final = 1 << 4
_OPTIONS: Final = ("CONFIG_KVM_AMD", "CONFIG_KVM_AMD_SEV", "CONFIG_CRYPTO_DEV_SP_PSP", "CONFIG_AMD_IOMMU")
_PASSTHROUGH: Final = ("iommu=pt", "iommu.passthrough=1", "iommu.passthrough=on", "amd_iommu=off", "iommu=off")
_PARAMETER: Final = "/sys/module/kvm_amd/parameters/sev_snp"

CLOUD_KERNEL: Final = Problem(
    "fail",
    "Linux {release} is one of Debian's kernels for guests",
    "Debian's cloud kernels have no KVM_AMD_SEV, no driver of the secure processor and no AMD IOMMU.",
    "install linux-image-amd64 and boot it",
)
OLD_KERNEL: Final = Problem(
    "fail",
    "Linux {release}",
    "KVM has been able to launch SNP guests since Linux 6.11.",
    "install Linux 6.11 or later (Debian 13 has 6.12)",
)
BACKPORT: Final = Problem(
    "warn",
    "Linux {release}, with SNP guests in its KVM",
    "A kernel with backported or out-of-tree SEV-SNP. AMD's old development kernels also set DebugSwap in SEV_FEATURES "
    "and so measure guests differently from what `parma measure` predicts.",
    "prefer Linux 6.11 or later",
)


def _examine_version(host: Host) -> Outcome:
    release = host.kernel_release()
    match = re.match(r"(\d+)\.(\d+)", release)
    if "cloud-amd64" in release:
        return CLOUD_KERNEL.found(release=release)
    if match and (int(match[1]), int(match[2])) >= MIN_KERNEL:
        return ok(f"Linux {release}")
    return (BACKPORT if (host.kvm_vm_types() or 0) & _SNP_VM else OLD_KERNEL).found(release=release)


NOT_CONFIGURED: Final = Problem(
    "fail",
    "the kernel was built without {options}",
    "KVM's SEV support, the driver of the secure processor and the IOMMU's driver are all needed.",
    "boot a kernel with these options; Debian's linux-image-amd64 has them",
)
CONFIG_UNKNOWN: Final = Problem(
    "skip",
    "neither /boot/config-{release} nor /proc/config.gz can be read",
    "The kernel's build options are not published here; kvm.vm_types gives the same answer in the end.",
    "install the kernel's config file, or run as root",
)


def _examine_config(host: Host) -> Outcome:
    release = host.kernel_release()
    text = _config(host, release)
    if text is None:
        return CONFIG_UNKNOWN.found(release=release)
    missing = [name for name in _OPTIONS if not re.search(rf"^{name}=[ym]$", text, re.MULTILINE)]
    return NOT_CONFIGURED.found(options=", ".join(missing)) if missing else ok(", ".join(_OPTIONS))


def _config(host: Host, release: str) -> str | None:
    plain = host.text(f"/boot/config-{release}")
    packed = None if plain is not None else host.data("/proc/config.gz")
    if packed is None:
        return plain
    try:
        return gzip.decompress(packed).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None


NO_IOMMU: Final = Problem(
    "fail",
    "no IOMMU is active",
    "Without the IOMMU a device could write to guests' memory, so the kernel refuses to initialise SNP.",
    "enable the IOMMU in the BIOS, and remove iommu=off and amd_iommu=off from the kernel's command line",
)
PASSTHROUGH: Final = Problem(
    "fail",
    "the kernel's command line says {word}",
    "SNP needs an IOMMU that translates: in passthrough mode the kernel says 'SNP cannot be supported'.",
    "remove the word from the kernel's command line and reboot",
)
IOMMU_LOG: Final = Problem(
    "fail",
    "the kernel says: IOMMU disabled or configured in passthrough mode, SNP cannot be supported",
    "The kernel was built to use passthrough by default (CONFIG_IOMMU_DEFAULT_PASSTHROUGH), or the BIOS has it off.",
    "boot with iommu=nopt, and enable the IOMMU in the BIOS",
)


def _examine_iommu(host: Host) -> Outcome:
    words = (host.text("/proc/cmdline") or "").split()
    if switched_off := [word for word in words if word in _PASSTHROUGH]:
        return PASSTHROUGH.found(word=switched_off[0])
    if "passthrough mode, SNP cannot be supported" in (host.kernel_log() or ""):
        return IOMMU_LOG.found()
    return ok("active") if host.names("/sys/class/iommu") else NO_IOMMU.found()


NO_KVM_AMD: Final = Problem(
    "fail",
    f"{_PARAMETER} does not exist",
    "The module kvm_amd is not loaded, or is older than SEV-SNP.",
    "modprobe kvm_amd, on Linux 6.11 or later",
)
KVM_SNP_OFF: Final = Problem(
    "fail",
    f"{_PARAMETER} is {{value}}",
    "kvm_amd found SNP not initialised when it was loaded: BIOS, IOMMU or the secure processor's firmware; or it was "
    "loaded before the module ccp.",
    "`dmesg | grep -i -e sev -e rmp -e ccp` names the reason; then reload: modprobe -r kvm_amd; modprobe ccp kvm_amd",
)


def _examine_parameter(host: Host) -> Outcome:
    value = (host.text(_PARAMETER) or "").strip()
    if not value:
        return NO_KVM_AMD.found()
    return ok(f"{_PARAMETER} is {value}") if value in ("Y", "1") else KVM_SNP_OFF.found(value=value)


NO_KVM: Final = Problem(
    "fail",
    "/dev/kvm does not exist",
    "Virtualisation (SVM) is off in the BIOS, or the module kvm_amd is not loaded.",
    "enable SVM in the BIOS and load kvm_amd",
)
KVM_DENIED: Final = Problem(
    "fail",
    "/dev/kvm: {reason}",
    "The user may not use KVM.",
    "run as root (as containerd's shims do), or join the group kvm",
)


def _examine_kvm(host: Host) -> Outcome:
    problem = host.openable("/dev/kvm")
    if problem is None:
        return NO_KVM.found()
    return KVM_DENIED.found(reason=problem) if problem else ok("/dev/kvm can be opened")


NO_SNP_VMS: Final = Problem(
    "fail",
    "KVM_CAP_VM_TYPES is {types:#x}, without bit 4",
    "KVM makes no SNP guests on this machine. QEMU says: vm-type SEV-SNP not supported by KVM.",
    "see kvm.sev_snp, and the checks of the processor above it",
)
VM_TYPES_UNKNOWN: Final = Problem("skip", "/dev/kvm cannot be asked", "See kvm.device.", "see kvm.device")


def _examine_vm_types(host: Host) -> Outcome:
    types = host.kvm_vm_types()
    if types is None:
        return VM_TYPES_UNKNOWN.found()
    return ok(f"KVM_CAP_VM_TYPES is {types:#x}") if types & _SNP_VM else NO_SNP_VMS.found(types=types)


NO_DEV_SEV: Final = Problem(
    "fail",
    "/dev/sev does not exist",
    "The module ccp did not find the secure processor. QEMU says: Failed to open /dev/sev.",
    "modprobe ccp; in a container, pass the device in; `dmesg | grep ccp` names the reason",
)
DEV_SEV_DENIED: Final = Problem(
    "fail",
    "/dev/sev: {reason}",
    "The user may not use the secure processor.",
    "run as root (as containerd's shims do), or give the group kvm access by a udev rule",
)


def _examine_dev_sev(host: Host) -> Outcome:
    problem = host.openable("/dev/sev")
    if problem is None:
        return NO_DEV_SEV.found()
    return DEV_SEV_DENIED.found(reason=problem) if problem else ok("/dev/sev can be opened")


PROBES: Final[tuple[Probe[Host], ...]] = (
    Probe("kernel.version", "Linux 6.11 or later", _examine_version, (CLOUD_KERNEL, OLD_KERNEL, BACKPORT)),
    Probe("kernel.config", "a kernel built for SNP hosts", _examine_config, (NOT_CONFIGURED, CONFIG_UNKNOWN)),
    Probe("kernel.iommu", "an IOMMU that translates", _examine_iommu, (NO_IOMMU, PASSTHROUGH, IOMMU_LOG)),
    Probe("kvm.device", "/dev/kvm", _examine_kvm, (NO_KVM, KVM_DENIED)),
    Probe("kvm.sev_snp", "SNP enabled in kvm_amd", _examine_parameter, (NO_KVM_AMD, KVM_SNP_OFF)),
    Probe("kvm.vm_types", "SNP guests among KVM's VM types", _examine_vm_types, (NO_SNP_VMS, VM_TYPES_UNKNOWN)),
    Probe("sev.device", "/dev/sev", _examine_dev_sev, (NO_DEV_SEV, DEV_SEV_DENIED)),
)
