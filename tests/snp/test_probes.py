# SPDX-License-Identifier: Apache-2.0
"""Host probes: each requirement is judged by itself, on recorded facts of machines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from parma_snp.errors import SnpError
from parma_snp.host import ThisHost
from parma_snp.probes import cbitpos, check_firmware, decode_memory_encryption, probe_host, require_snp_host

# EPYC Genoa: SME, SEV, SEV-ES, SNP; C-bit 51, 5 bits reduction; 1006 ASIDs, SEV-only ones from 100.
GENOA = (0x1F | 1 << 16, 51 | 5 << 6, 1006, 100)


@dataclass(frozen=True)
class FakeHost:
    """A machine that can launch SNP guests, unless told otherwise."""

    texts: dict[str, str] = field(
        default_factory=lambda: {
            "/proc/cmdline": "BOOT_IMAGE=/vmlinuz quiet",
            "/proc/cpuinfo": "flags\t\t: fpu sev sev_es sev_snp\n",
            "/sys/module/kvm_amd/parameters/sev_snp": "Y\n",
        }
    )
    devices: dict[str, str] = field(default_factory=lambda: {"/dev/sev": "", "/dev/vhost-vsock": ""})
    iommus: tuple[str, ...] = ("ivhd0",)
    leaf: tuple[int, int, int, int] | None = GENOA
    vm_types: int | None = 0x1F
    version: str | None = "QEMU emulator version 10.0.2 (Debian)\n"
    release: str = "6.12.95+deb13-amd64"

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def names(self, path: str) -> list[str] | None:
        return list(self.iommus) if path == "/sys/class/iommu" else None

    def openable(self, path: str) -> str | None:
        return self.devices.get(path)

    def cpuid(self, leaf: int) -> tuple[int, int, int, int] | None:
        if self.leaf is None:
            return None
        return (0x80000028, 0, 0, 0) if leaf == 0x80000000 else self.leaf

    def kvm_vm_types(self) -> int | None:
        return self.vm_types

    def qemu(self, *arguments: str) -> str | None:
        if self.version is None:
            return None
        return self.version if arguments == ("--version",) else "List of user creatable objects:\n  sev-snp-guest\n"

    def kernel_release(self) -> str:
        return self.release


GOOD = FakeHost()


def status_of(host: FakeHost, name: str) -> str:
    return next(check.status for check in probe_host(host) if check.id == name)


def test_suitable_host_passes_every_check() -> None:
    checks = probe_host(GOOD)
    assert {check.status for check in checks} == {"ok"}
    assert len({check.id for check in checks}) == len(checks)
    require_snp_host(checks)


def test_cpuid_leaf_is_taken_apart() -> None:
    found = decode_memory_encryption(GENOA)
    assert (found.sev_snp, found.cbitpos, found.phys_bits_reduction) == (True, 51, 5)
    assert found.snp_asids == 99


def test_cbit_comes_from_the_processor() -> None:
    assert cbitpos(replace(GOOD, leaf=(0x1F, 47, 0, 2))) == 47


@pytest.mark.parametrize("leaf", [None, (0x0F, 51, 509, 100), (0, 0, 0, 0)])
def test_cbit_of_a_processor_without_snp_is_an_error(leaf: tuple[int, int, int, int] | None) -> None:
    with pytest.raises(SnpError) as caught:
        cbitpos(replace(GOOD, leaf=leaf))
    assert caught.value.code == "host.cbitpos"


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        (replace(GOOD, leaf=(0x0F, 51, 509, 100)), "cpu.sev_snp", "fail"),
        (replace(GOOD, leaf=None), "cpu.sev_snp", "warn"),
        (replace(GOOD, leaf=None, texts={}), "cpu.sev_snp", "skip"),
        (replace(GOOD, leaf=None, texts={"/proc/cpuinfo": "flags : sev sev_es\n"}), "cpu.sev_snp", "fail"),
        (replace(GOOD, leaf=(0x1F, 51, 509, 1)), "cpu.asids", "fail"),
        (replace(GOOD, release="6.1.0-40-amd64"), "kernel.version", "fail"),
        (replace(GOOD, release="6.12.95+deb13-cloud-amd64"), "kernel.version", "fail"),
        (replace(GOOD, release="7.0.0"), "kernel.version", "ok"),
        (replace(GOOD, iommus=()), "iommu", "fail"),
        (replace(GOOD, texts={"/proc/cmdline": "quiet iommu=pt"}), "iommu", "fail"),
        (replace(GOOD, texts={"/sys/module/kvm_amd/parameters/sev_snp": "N\n"}), "kvm.sev_snp", "fail"),
        (replace(GOOD, texts={}), "kvm.sev_snp", "fail"),
        (replace(GOOD, vm_types=0x0F), "kvm.vm_types", "fail"),
        (replace(GOOD, vm_types=None), "kvm.vm_types", "fail"),
        (replace(GOOD, devices={}), "dev.sev", "fail"),
        (replace(GOOD, devices={"/dev/sev": "Permission denied"}), "dev.sev", "fail"),
        (replace(GOOD, devices={"/dev/sev": ""}), "dev.vhost_vsock", "warn"),
        (replace(GOOD, version="QEMU emulator version 7.2.0\n"), "qemu.version", "fail"),
        (replace(GOOD, version=None), "qemu.version", "fail"),
        (replace(GOOD, version=None), "qemu.sev_snp_guest", "skip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "host",
)
def test_missing_requirement_is_named(host: FakeHost, name: str, status: str) -> None:
    assert status_of(host, name) == status


def test_every_complaint_comes_with_a_fix() -> None:
    bare = FakeHost({}, {}, (), None, None, None, "5.10.0")
    for check in probe_host(bare):
        assert check.fix or check.status in ("ok", "skip"), check.id


def test_unsuitable_host_is_refused_with_all_reasons() -> None:
    host = replace(GOOD, devices={}, vm_types=0)
    with pytest.raises(SnpError) as caught:
        require_snp_host(probe_host(host))
    assert caught.value.code == "host.unsuitable"
    assert "dev.sev" in str(caught.value)
    assert "kvm.vm_types" in str(caught.value)


def test_firmware_that_is_no_firmware_fails(tmp_path: Path) -> None:
    (tmp_path / "bios.bin").write_bytes(bytes(65536))
    assert check_firmware(tmp_path / "bios.bin").status == "fail"
    assert check_firmware(tmp_path / "missing").status == "fail"


def test_this_machine_can_be_probed_without_failing() -> None:
    checks = probe_host(ThisHost(), firmware=Path("/nonexistent"))
    assert [check.id for check in checks][-1] == "firmware.hash_table"
    assert {check.status for check in checks} <= {"ok", "warn", "fail", "skip"}
