# SPDX-License-Identifier: Apache-2.0
"""The SEV-SNP part of QEMU's command line. Pure: values in, arguments out; nothing is probed here.

For QEMU 9.1 to 11.x (object ``sev-snp-guest``); where versions differ, what the binary said of itself decides
(``parma_snp.qemu``). QEMU accepts several combinations that boot an unmeasured kernel or crash; they cannot be
expressed here.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_snp.errors import SnpError
from parma_snp.measure import DEFAULT_VCPU_TYPE
from parma_snp.qemu import Qemu
from parma_snp.report import HOST_DATA_SIZE, POLICY_DEBUG, POLICY_RESERVED_ONE, POLICY_SMT

DEFAULT_POLICY: Final = POLICY_SMT | POLICY_RESERVED_ONE
ID_BLOCK_SIZE: Final = 96
ID_AUTH_SIZE: Final = 4096
# What KVM up to Linux 6.12 lets through: the ABI minimum, SMT, the bit that is always one, and DEBUG.
_POLICY_MASK: Final = 0xFFFF | POLICY_SMT | POLICY_RESERVED_ONE | POLICY_DEBUG
_FIRMWARE_ALIGNMENT: Final = 64 * 1024
MIN_QEMU: Final = (9, 1)
REQUIRED_PROPERTIES: Final = frozenset(
    (
        "cbitpos",
        "reduced-phys-bits",
        "policy",
        "kernel-hashes",
        "host-data",
        "id-block",
        "id-auth",
        "author-key-enabled",
    )
)
"""What the object ``sev-snp-guest`` must have. All of it has been there under these names since QEMU 9.1."""
_CBIT_RANGE: Final = range(32, 64)


@dataclass(frozen=True)
class IdBlock:
    """A signed ID block (96 bytes) with its authentication information (4096 bytes); see ``parma_snp.idblock``."""

    block: bytes
    auth: bytes
    author_key: bool

    def __post_init__(self) -> None:
        # QEMU accepts a shorter auth and lets KVM read past its end.
        for name, value, size in (("ID block", self.block, ID_BLOCK_SIZE), ("ID auth", self.auth, ID_AUTH_SIZE)):
            if len(value) != size:
                raise SnpError(
                    "launch.id_block",
                    f"the {name} has another size",
                    expected=f"{size} bytes",
                    found=f"{len(value)} bytes",
                )

    @property
    def measurement(self) -> bytes:
        """The only launch digest (48 bytes) with which the firmware finishes the launch."""
        return self.block[:48]

    @property
    def policy(self) -> int:
        """The only guest policy with which the firmware accepts the block."""
        return int.from_bytes(self.block[88:96], "little")


@dataclass(frozen=True)
class SnpLaunch:
    """What an SNP guest is launched with.

    ``firmware``, ``kernel``, ``initrd`` are file names as QEMU will open them; ``cmdline`` is measured byte for byte.
    ``host_data``: 32 bytes, SHA-256 of the policy. ``cbitpos``: from the host's CPUID (``parma_snp.probes``).
    ``allow_debug`` must be set for a guest policy with DEBUG, which lets the host read the guest's memory.
    Raises SnpError of the ``launch`` family.
    """

    firmware: Path
    kernel: Path
    initrd: Path
    cmdline: str
    host_data: bytes
    cbitpos: int
    vcpus: int
    memory_mib: int
    vcpu_type: str = DEFAULT_VCPU_TYPE
    policy: int = DEFAULT_POLICY
    allow_debug: bool = False
    id_block: IdBlock | None = None

    def __post_init__(self) -> None:
        if len(self.host_data) != HOST_DATA_SIZE:
            raise SnpError(
                "launch.host_data",
                "HOST_DATA has another size",
                expected=f"{HOST_DATA_SIZE} bytes",
                found=f"{len(self.host_data)} bytes",
            )
        if self.cbitpos not in _CBIT_RANGE:
            raise SnpError("launch.cbitpos", "impossible C-bit position", found=str(self.cbitpos))
        if self.vcpus < 1 or self.memory_mib < 1:
            raise SnpError("launch.shape", "impossible VM shape", found=f"{self.vcpus} vCPUs, {self.memory_mib} MiB")
        if "\0" in self.cmdline:
            raise SnpError("launch.cmdline", "the command line contains a NUL; QEMU would cut it there")
        check_policy(self.policy, allow_debug=self.allow_debug)
        if self.id_block is not None and self.id_block.policy != self.policy:
            raise SnpError(
                "launch.id_block",
                "the ID block is for another guest policy",
                expected=f"{self.policy:#x}",
                found=f"{self.id_block.policy:#x}",
            )


def check_policy(policy: int, *, allow_debug: bool = False) -> None:
    """Refuse a guest policy that KVM refuses, or DEBUG unasked. Raises SnpError ``launch.policy``."""
    required = POLICY_SMT | POLICY_RESERVED_ONE
    if policy & ~_POLICY_MASK or policy & required != required:
        raise SnpError(
            "launch.policy",
            "KVM does not launch guests with this policy",
            expected="bits 16 and 17 set, the ABI minimum in bits 0..15, nothing else but DEBUG (19)",
            found=f"{policy:#x}",
        )
    if policy & POLICY_DEBUG and not allow_debug:
        raise SnpError("launch.policy", "the guest policy lets the host read the guest's memory (DEBUG)")


def check_firmware_size(size: int) -> None:
    """QEMU loads ``-bios`` images in 64 KiB steps only. Raises SnpError ``launch.firmware``."""
    if size <= 0 or size % _FIRMWARE_ALIGNMENT:
        raise SnpError(
            "launch.firmware", "impossible firmware size", expected="a multiple of 64 KiB", found=f"{size} bytes"
        )


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def snp_object(launch: SnpLaunch) -> str:
    """The value of ``-object``: JSON, so that nothing in it needs escaping and lengths do not matter."""
    properties: dict[str, object] = {
        "qom-type": "sev-snp-guest",
        "id": "sev0",
        "cbitpos": launch.cbitpos,
        "reduced-phys-bits": 1,
        "policy": launch.policy,
        # Off by default in QEMU, which then boots an unmeasured kernel without a word.
        "kernel-hashes": True,
        "host-data": _base64(launch.host_data),
    }
    if launch.id_block is not None:
        properties["id-block"] = _base64(launch.id_block.block)
        properties["id-auth"] = _base64(launch.id_block.auth)
        properties["author-key-enabled"] = launch.id_block.author_key
    return json.dumps(properties, separators=(",", ":"))


def _memory_object(memory_mib: int) -> str:
    # Shared memory is what vhost-user devices see; private pages live in guest_memfd, which QEMU makes itself.
    properties = {
        "qom-type": "memory-backend-memfd",
        "id": "ram1",
        "size": memory_mib * 1024 * 1024,
        "share": True,
        "prealloc": False,
    }
    return json.dumps(properties, separators=(",", ":"))


_MACHINE: Final = (
    "q35,accel=kvm,kernel-irqchip=split,smm=off,vmport=off,confidential-guest-support=sev0,memory-backend=ram1"
)
# What q35 brings unasked and a Linux guest without a screen does not use. Not every QEMU has every switch.
_UNUSED: Final = ("sata", "smbus", "usb", "i8042", "graphics")


def machine(qemu: Qemu) -> str:
    """The value of ``-machine``: SMM is impossible with SNP, and every device left out is one that cannot lie."""
    return ",".join([_MACHINE, *(f"{name}=off" for name in _UNUSED if name in qemu.machine_properties)])


def check_qemu(launch: SnpLaunch, qemu: Qemu) -> None:
    """Refuse a QEMU that cannot launch this. Raises SnpError ``launch.qemu``."""
    if qemu.version < MIN_QEMU:
        raise SnpError("launch.qemu", "this QEMU is too old", expected="9.1 or later", found=qemu.name)
    missing = REQUIRED_PROPERTIES - qemu.snp_properties
    if missing:
        raise SnpError("launch.qemu", f"{qemu.name}: sev-snp-guest lacks {', '.join(sorted(missing))}")
    if launch.vcpu_type not in qemu.cpu_models:
        raise SnpError("launch.qemu", f"{qemu.name} has no CPU model {launch.vcpu_type}")


def qemu_arguments(launch: SnpLaunch, qemu: Qemu) -> list[str]:
    """Machine, processor, memory, the SNP object and direct boot; devices, QMP and consoles are the caller's.

    The caller must not add memory or vCPU hotplug, a vIOMMU, pflash, or ``iommu_platform=off`` on any device.
    Raises SnpError ``launch.qemu``.
    """
    check_qemu(launch, qemu)
    return [
        "-nodefaults",
        "-no-user-config",
        # A reset guest is another guest (new REPORT_ID, no state); QEMU 11 would rebuild it silently.
        "-no-reboot",
        "-machine",
        machine(qemu),
        "-cpu",
        launch.vcpu_type,
        "-smp",
        f"{launch.vcpus},maxcpus={launch.vcpus}",
        "-m",
        f"{launch.memory_mib}M",
        "-object",
        _memory_object(launch.memory_mib),
        "-object",
        snp_object(launch),
        "-bios",
        str(launch.firmware),
        "-kernel",
        str(launch.kernel),
        "-initrd",
        str(launch.initrd),
        "-append",
        launch.cmdline,
    ]
