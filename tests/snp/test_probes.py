# SPDX-License-Identifier: Apache-2.0
"""Host probes: each requirement is judged by itself, on recorded facts of machines."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from parma_snp import cpuid
from parma_snp.checks import Check
from parma_snp.errors import SnpError
from parma_snp.host import ThisHost
from parma_snp.launch import REQUIRED_PROPERTIES
from parma_snp.platform import PlatformStatus
from parma_snp.probes import PROBES, cbitpos, probe_host, require_snp_host
from parma_snp.probes.processor import decode_memory_encryption
from parma_snp.qemu import Qemu
from tests.snp import firmware

# EPYC Genoa: SME, SEV, SEV-ES, SNP; C-bit 51, 5 bits reduction; 1006 ASIDs, SEV-only ones from 100.
GENOA = (0x1F | 1 << 16, 51 | 5 << 6, 1006, 100)
AMD = (0x10, *struct.unpack("<III", b"AuthcAMDenti"))
INTEL = (0x20, *struct.unpack("<III", b"GenuntelineI"))
CONFIG = "CONFIG_KVM_AMD=m\nCONFIG_KVM_AMD_SEV=y\nCONFIG_CRYPTO_DEV_SP_PSP=y\nCONFIG_AMD_IOMMU=y\n"
RELEASE = "6.12.95+deb13-amd64"
LOG = (
    "SEV-SNP: RMP table physical range [0x000000bf7e800000 - 0x000000c03f0fffff]\n"
    "ccp 0000:22:00.1: SEV-SNP API:1.55 build:40\n"
    "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)\n"
)
PLATFORM = PlatformStatus((1, 55), 40, 0, bytes(8))
QEMU = Qemu((10, 0, 2), REQUIRED_PROPERTIES, frozenset(("sata",)), frozenset(("EPYC-v4",)))


@dataclass(frozen=True)
class FakeHost:
    """A machine that can launch SNP guests, unless told otherwise."""

    texts: dict[str, str] = field(
        default_factory=lambda: {
            "/proc/cmdline": "BOOT_IMAGE=/vmlinuz quiet",
            f"/boot/config-{RELEASE}": CONFIG,
            "/sys/module/kvm_amd/parameters/sev_snp": "Y\n",
        }
    )
    files: dict[str, bytes] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=lambda: {"/dev/sev": "", "/dev/kvm": ""})
    iommus: tuple[str, ...] = ("ivhd0",)
    vendor: tuple[int, ...] = AMD
    signature: int = 0xA10F11
    hypervisor: bool = False
    leaf: tuple[int, int, int, int] | None = GENOA
    rmp: tuple[int | None, int | None] = (0xBF7E800000, 0xC03F0FFFFF)
    log: str | None = LOG
    platform: PlatformStatus | None = PLATFORM
    vm_types: int | None = 0x1F
    asked: Qemu | None = QEMU
    bios: Path | None = None
    release: str = RELEASE

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def data(self, path: str) -> bytes | None:
        return self.files.get(path)

    def names(self, path: str) -> list[str] | None:
        return list(self.iommus) if path == "/sys/class/iommu" else None

    def openable(self, path: str) -> str | None:
        return self.devices.get(path)

    def cpuid(self, leaf: int) -> tuple[int, int, int, int] | None:
        if leaf == 0:
            a, b, c, d = self.vendor
            return a, b, c, d
        if leaf == 1:
            return self.signature, 0, self.hypervisor << 31, 0
        if leaf == 0x80000000:
            return (0x80000028 if self.leaf else 0x80000008), 0, 0, 0
        return self.leaf

    def msr(self, register: int) -> int | None:
        return self.rmp[register - 0xC0010132]

    def kernel_log(self) -> str | None:
        return self.log

    def kernel_release(self) -> str:
        return self.release

    def kvm_vm_types(self) -> int | None:
        return self.vm_types

    def snp_platform_status(self) -> PlatformStatus | None:
        return self.platform

    def qemu(self) -> Qemu | None:
        return self.asked

    def firmware(self) -> Path | None:
        return self.bios


@pytest.fixture
def good(tmp_path: Path) -> FakeHost:
    bios = tmp_path / "OVMF.amdsev.fd"
    bios.write_bytes(bytes(15 * 4096) + firmware.build())
    return FakeHost(bios=bios)


def check_of(host: FakeHost, name: str) -> Check:
    return next(check for check in probe_host(host) if check.id == name)


def test_suitable_host_passes_every_check(good: FakeHost) -> None:
    checks = probe_host(good)
    assert [(check.id, check.evidence) for check in checks if check.status != "ok"] == []
    assert len({check.id for check in checks}) == len(checks)
    require_snp_host(good)


def test_cpuid_leaf_is_taken_apart() -> None:
    found = decode_memory_encryption(GENOA)
    assert (found.sev_snp, found.cbitpos, found.phys_bits_reduction) == (True, 51, 5)
    assert found.snp_asids == 99


def test_cbit_comes_from_the_processor(good: FakeHost) -> None:
    assert cbitpos(replace(good, leaf=(0x1F, 47, 0, 2))) == 47


@pytest.mark.parametrize("leaf", [None, (0x0F, 51, 509, 100), (0, 0, 0, 0)])
def test_cbit_of_a_processor_without_snp_is_an_error(good: FakeHost, leaf: tuple[int, int, int, int] | None) -> None:
    with pytest.raises(SnpError) as caught:
        cbitpos(replace(good, leaf=leaf))
    assert caught.value.code == "host.cbitpos"


OLD_QEMU = replace(QEMU, version=(7, 2, 0))
NO_SNP = replace(QEMU, snp_properties=frozenset())
PARAMETER = "/sys/module/kvm_amd/parameters/sev_snp"


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        ({"vendor": INTEL}, "cpu.product", "fail", "GenuineIntel"),
        ({"signature": 0x830F10}, "cpu.product", "warn", "family 0x17, model 0x31"),
        ({"hypervisor": True}, "cpu.product", "warn", "inside a virtual machine"),
        ({"leaf": (0x0F, 51, 509, 100)}, "cpu.sev_snp", "fail", "SEV-ES yes, SEV-SNP no"),
        ({"leaf": None}, "cpu.sev_snp", "fail", "no leaf 8000001F"),
        ({"leaf": None}, "cpu.cbit", "skip", "no SEV-SNP"),
        ({"leaf": (0x1F, 0, 509, 100)}, "cpu.cbit", "fail", "gives 0"),
        ({"leaf": (0x1F, 51, 509, 1)}, "cpu.asids", "fail", "no address space identifiers"),
        ({"rmp": (0, 0)}, "bios.rmp", "fail", "RMP_BASE"),
        ({"rmp": (None, None)}, "bios.rmp", "ok", "0x000000bf7e800000"),
        (
            {"rmp": (None, None), "log": "SEV-SNP: Memory for the RMP table has not been reserved by BIOS"},
            "bios.rmp",
            "fail",
            "kernel's messages",
        ),
        ({"rmp": (None, None), "log": None}, "bios.rmp", "skip", "neither"),
        ({"platform": PlatformStatus((1, 49), 1, 0, bytes(8))}, "sev.firmware", "fail", "API 1.49"),
        ({"platform": PlatformStatus((1, 52), 1, 0, bytes(8))}, "sev.firmware", "warn", "API 1.52"),
        ({"platform": None}, "sev.firmware", "ok", "API 1.55"),
        ({"platform": None, "log": None}, "sev.firmware", "skip", "neither /dev/sev"),
        ({"release": "6.1.0-40-amd64", "vm_types": 1}, "kernel.version", "fail", "Linux 6.1.0"),
        ({"release": "5.14.0-570.el9"}, "kernel.version", "warn", "with SNP guests in its KVM"),
        ({"release": "6.12.95+deb13-cloud-amd64"}, "kernel.version", "fail", "for guests"),
        ({"release": "7.0.0"}, "kernel.version", "ok", "Linux 7.0.0"),
        ({"release": "7.0.0"}, "kernel.config", "skip", "/boot/config-7.0.0"),
        (
            {"release": "7.0.0", "files": {"/proc/config.gz": gzip.compress(CONFIG.encode())}},
            "kernel.config",
            "ok",
            "CONFIG_KVM_AMD_SEV",
        ),
        ({"release": "7.0.0", "files": {"/proc/config.gz": b"\x1f\x8b\x08"}}, "kernel.config", "skip", "neither"),
        (
            {"texts": {f"/boot/config-{RELEASE}": CONFIG.replace("_SEV=y", "_SEV=n")}},
            "kernel.config",
            "fail",
            "CONFIG_KVM_AMD_SEV",
        ),
        ({"iommus": ()}, "kernel.iommu", "fail", "no IOMMU"),
        ({"texts": {"/proc/cmdline": "quiet iommu=pt"}}, "kernel.iommu", "fail", "iommu=pt"),
        (
            {"log": "AMD-Vi: IOMMU disabled or configured in passthrough mode, SNP cannot be supported"},
            "kernel.iommu",
            "fail",
            "passthrough",
        ),
        ({"texts": {PARAMETER: "N\n"}}, "kvm.sev_snp", "fail", "is N"),
        ({"texts": {}}, "kvm.sev_snp", "fail", "does not exist"),
        ({"devices": {}}, "kvm.device", "fail", "does not exist"),
        ({"devices": {"/dev/kvm": "Permission denied"}}, "kvm.device", "fail", "Permission denied"),
        ({"vm_types": 0x0F}, "kvm.vm_types", "fail", "0xf"),
        ({"vm_types": None}, "kvm.vm_types", "skip", "cannot be asked"),
        ({"devices": {"/dev/kvm": ""}}, "sev.device", "fail", "does not exist"),
        ({"devices": {"/dev/sev": "Permission denied"}}, "sev.device", "fail", "Permission denied"),
        ({"asked": OLD_QEMU}, "qemu.version", "fail", "QEMU 7.2.0"),
        ({"asked": None}, "qemu.version", "fail", "cannot be run"),
        ({"asked": None}, "qemu.sev_snp_guest", "skip", "cannot be run"),
        ({"asked": NO_SNP}, "qemu.sev_snp_guest", "fail", "no object sev-snp-guest"),
        (
            {"asked": replace(QEMU, snp_properties=REQUIRED_PROPERTIES - {"host-data"})},
            "qemu.sev_snp_guest",
            "fail",
            "host-data",
        ),
        ({"asked": replace(QEMU, cpu_models=frozenset())}, "qemu.cpu_model", "fail", "EPYC-v4"),
        ({"bios": None}, "firmware.hash_table", "skip", "no guest image"),
        ({"bios": Path("/nonexistent")}, "firmware.hash_table", "fail", "cannot read"),
    ],
)
def test_missing_requirement_is_named(
    good: FakeHost, change: dict[str, object], name: str, status: str, words: str
) -> None:
    check = check_of(replace(good, **change), name)  # type: ignore[arg-type]
    assert (check.status, words in check.evidence) == (status, True), check


def test_firmware_without_hash_table_fails(good: FakeHost) -> None:
    assert good.bios is not None
    good.bios.write_bytes(bytes(15 * 4096) + firmware.build(hash_table=False))
    assert check_of(good, "firmware.hash_table").status == "fail"
    good.bios.write_bytes(firmware.build())  # right tables, wrong size
    assert check_of(good, "firmware.hash_table").status == "fail"


def test_every_complaint_comes_with_a_fix() -> None:
    bare = FakeHost({}, {}, {}, (), INTEL, 0, False, None, (None, None), None, None, None, None, None, "5.10.0")
    for check in probe_host(bare):
        assert check.status != "ok", check
        assert check.fix, check.id


def test_what_a_probe_says_is_in_its_list_of_problems(good: FakeHost) -> None:
    """The documentation is made from that list."""
    bare = FakeHost({}, {}, {}, (), INTEL, 0, False, None, (None, None), None, None, None, None, None, "5.10.0")
    for probe in PROBES:
        assert probe.examine(good).status == "ok", probe.id
        check = probe.run(bare)
        assert check.fix in [problem.fix for problem in probe.problems], probe.id


def test_unsuitable_host_is_refused_with_the_first_reason(good: FakeHost) -> None:
    host = replace(good, devices={}, vm_types=1)
    with pytest.raises(SnpError) as caught:
        require_snp_host(host)
    assert caught.value.code == "host.unsuitable"
    assert "kvm.device: /dev/kvm does not exist (and kvm.vm_types, sev.device)" in str(caught.value)
    assert caught.value.hint.startswith("enable SVM")


def test_warnings_do_not_stop_a_launch(good: FakeHost) -> None:
    require_snp_host(replace(good, hypervisor=True, platform=None, log=None))


def test_this_machine_can_be_probed_without_failing() -> None:
    checks = probe_host(ThisHost(firmware=Path("/nonexistent")))
    assert [check.id for check in checks] == [probe.id for probe in PROBES]
    assert {check.status for check in checks} <= {"ok", "warn", "fail", "skip"}


def test_instruction_and_device_give_the_same_answer() -> None:
    by_device = cpuid._by_device(0x80000000)
    if by_device is None:
        pytest.skip("no /dev/cpu/0/cpuid that can be read")
    assert cpuid.cpuid(0x80000000) == by_device


def test_a_tree_of_files_is_probed_like_the_machine(tmp_path: Path) -> None:
    (tmp_path / "sys/class/iommu/ivhd0").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").write_bytes(b"6,1,2,-;ccp 0000:22:00.1: SEV-SNP API:1.55 build:40\n SUBSYSTEM=pci\n")
    host = ThisHost(root=tmp_path)
    assert host.names("/sys/class/iommu") == ["ivhd0"]
    assert host.text("/proc/cmdline") is None
    assert host.openable("/dev/sev") is None
    assert "API:1.55" in (host.kernel_log() or "")
    assert host.kvm_vm_types() is None
    assert host.snp_platform_status() is None
    assert host.qemu() is None
