# SPDX-License-Identifier: Apache-2.0
"""Launch measurements: everything that is booted counts, and nothing unmeasurable is measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from parma_snp.errors import SnpError
from parma_snp.measure import VCPU_COUNTS, digest_of, has_hash_table, launch_digest, measurement_table
from tests.snp import firmware

CMDLINE = "console=ttyS0 parma.tee=snp"
# Of the files below, one vCPU of EPYC-v4; made by this test's own first run and since then a constant.
GOLDEN = "7cca54e9e4be18b4bf5351ed6de7b8874d2dffef6b061473c59a2788ae9d3d40c2af68415af4e63f658a33951dba725f"


@dataclass(frozen=True)
class Files:
    firmware: Path
    kernel: Path
    initrd: Path

    def digest(self, cmdline: str = CMDLINE, vcpus: int = 1, vcpu_type: str = "EPYC-v4") -> bytes:
        return launch_digest(self.firmware, self.kernel, self.initrd, cmdline, vcpus, vcpu_type)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = Files(tmp_path / "OVMF.fd", tmp_path / "vmlinuz", tmp_path / "initrd.img")
    found.firmware.write_bytes(firmware.build())
    found.kernel.write_bytes(b"kernel")
    found.initrd.write_bytes(b"initrd")
    return found


def test_digest_is_the_golden_one(files: Files) -> None:
    assert files.digest().hex() == GOLDEN


@pytest.mark.parametrize("name", ["firmware", "kernel", "initrd"])
def test_one_bit_of_a_file_changes_it(files: Files, name: str) -> None:
    before = files.digest()
    path: Path = getattr(files, name)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    assert files.digest() != before


def test_command_line_and_shape_change_it(files: Files) -> None:
    digests = {
        files.digest(),
        files.digest(CMDLINE + " "),
        files.digest(vcpus=2),
        files.digest(vcpu_type="EPYC-Milan"),
    }
    assert len(digests) == 4


def test_later_versions_of_a_model_have_its_signature(files: Files) -> None:
    assert files.digest(vcpu_type="EPYC-Milan-v4") == files.digest(vcpu_type="EPYC-Milan")


def test_table_has_the_digest_of_every_shape(files: Files) -> None:
    table = measurement_table(files.firmware, files.kernel, files.initrd, CMDLINE)
    assert [row.vcpus for row in table] == list(VCPU_COUNTS)
    assert all(row.digest == files.digest(vcpus=row.vcpus) for row in table)


def test_a_kernel_without_acpi_has_one_processor_and_the_table_one_row(files: Files) -> None:
    line = f"{CMDLINE} acpi=off"
    table = measurement_table(files.firmware, files.kernel, files.initrd, line)
    assert [(row.vcpus, row.digest) for row in table] == [(1, files.digest(line))]


def test_firmware_without_hash_table_is_refused(files: Files) -> None:
    files.firmware.write_bytes(firmware.build(hash_table=False))
    assert not has_hash_table(files.firmware)
    with pytest.raises(SnpError) as caught:
        files.digest()
    assert caught.value.code == "measure.firmware"


def test_firmware_with_hash_table_is_recognised(files: Files) -> None:
    assert has_hash_table(files.firmware)


@pytest.mark.parametrize("data", [b"", bytes(10), bytes(4096), b"\xff" * 4096])
def test_what_is_no_firmware_is_refused(files: Files, data: bytes) -> None:
    files.firmware.write_bytes(data)
    with pytest.raises(SnpError) as caught:
        files.digest()
    assert caught.value.code == "measure.firmware"


@pytest.mark.parametrize(
    ("cmdline", "vcpus", "vcpu_type", "code"),
    [
        (CMDLINE, 0, "EPYC-v4", "measure.vcpus"),
        (CMDLINE, 1, "Skylake", "measure.vcpu_type"),
        (CMDLINE, 1, "Skylake-v4", "measure.vcpu_type"),
        (CMDLINE, 1, "EPYC-Milan-v", "measure.vcpu_type"),
        ("a\0b", 1, "EPYC-v4", "measure.cmdline"),
    ],
)
def test_impossible_shapes_are_refused(files: Files, cmdline: str, vcpus: int, vcpu_type: str, code: str) -> None:
    with pytest.raises(SnpError) as caught:
        files.digest(cmdline, vcpus, vcpu_type)
    assert caught.value.code == code


def test_missing_file_is_named(files: Files) -> None:
    files.kernel.unlink()
    with pytest.raises(SnpError, match="vmlinuz") as caught:
        files.digest()
    assert caught.value.code == "measure.file"


ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT.parent / "shared" / "vectors" / "snp" / "measurement" / "debian-ovmf-amdsev.json"
PRODUCTION = ROOT / ".dev" / "prefix" / "share" / "OVMF.amdsev.fd"


@pytest.mark.skipif(not RECORDED.exists() or not PRODUCTION.exists(), reason="no shared vectors or no Debian firmware")
def test_production_firmware_measures_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording names kernel and initrd by hash only; so the files' hashes are put in their place."""
    from sevsnpmeasure import guest
    from sevsnpmeasure.sev_hashes import SevHashes

    recorded = json.loads(RECORDED.read_text())
    if hashlib.sha256(PRODUCTION.read_bytes()).hexdigest() != recorded["ovmf_sha256"]:
        pytest.skip("another version of the firmware")

    def by_hash(*_files: str) -> SevHashes:
        hashes = SevHashes("/dev/null", "", recorded["append"])
        hashes.kernel_hash = bytes.fromhex(recorded["kernel_sha256"])
        hashes.initrd_hash = bytes.fromhex(recorded["initrd_sha256"])
        return hashes

    monkeypatch.setattr(guest, "SevHashes", by_hash)
    wrong = [
        entry
        for entry in recorded["digests"]
        if digest_of(PRODUCTION, Path("/dev/null"), None, "", entry["vcpus"], entry["vcpu_type"]).hex()
        != entry["expected"]
    ]
    assert wrong == []
