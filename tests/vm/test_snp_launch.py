# SPDX-License-Identifier: Apache-2.0
"""tee = "snp" through the shim's own code: from the host's requirements to the bytes that the firmware would get.

What is not real: the host's answers about itself (``snp_helper``) and KVM (``kvm_fake``). QEMU, its sandbox, the vsock
device, the monitor and the guest image are.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sevsnpmeasure.ovmf import OVMF
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmsa import VMSA

from parma_shim.vm.command import VmSpec
from parma_shim.vm.image import GuestImage, load_image
from parma_shim.vm.machine import VirtualMachine
from parma_snp import idblock, idblock_file
from parma_snp.measure import DEFAULT_VCPU_TYPE, GUEST_FEATURES
from parma_wire.errors import Unavailable
from tests.snp import kvm_fake
from tests.snp.kvm_fake import FakeKvm, Recording
from tests.vm.support import PREFIX, ROOT, Settings, soon

IMAGE = ROOT / ".dev/image"
POLICY = b"package policy\n"
QEMU = Path(os.environ.get("PARMA_TEST_QEMU", PREFIX / "bin/qemu-system-x86_64"))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(kvm_fake.missing()), reason=kvm_fake.missing() or "-"),
    pytest.mark.skipif(not QEMU.exists(), reason="no QEMU in .dev: run ./dev setup"),
    pytest.mark.skipif(not (IMAGE / "manifest.json").exists(), reason="no guest image in .dev: run ./dev setup"),
]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeKvm:
    return kvm_fake.build(tmp_path_factory.mktemp("kvm_fake"))


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return load_image(IMAGE)


class Bench:
    """Settings whose QEMU sees the fake KVM and whose helper sees the fake host."""

    def __init__(self, directory: Path, fake: FakeKvm, image: GuestImage) -> None:
        self.directory = directory
        self.image = image
        self.record = directory / "record"
        self.record.mkdir()
        self.fail = ""
        self._fake = fake
        self.settings = Settings(directory)
        self.settings.accelerator = "auto"
        path = os.pathsep.join([*sys.path, str(ROOT)])
        self.settings.python = self._script(
            "python",
            f'PYTHONPATH="{path}" PARMA_TEST_CBIT={fake.cbitpos} exec "{sys.executable}" -m tests.vm.snp_helper',
        )

    def _script(self, name: str, command: str) -> Path:
        script = self.directory / name
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)
        return script

    def launch(self, vcpus: int = 1) -> VirtualMachine:
        variables = self._fake.environment(self.record, fail=self.fail)
        words = " ".join(f"{name}='{value}'" for name, value in variables.items())
        self.settings.qemu = self._script("qemu", f'{words} exec "{QEMU}" "$@"')
        digest = hashlib.sha256(POLICY).digest()
        spec = VmSpec("parma-test", self.directory / "vm", vcpus, 256, digest, self.image, "snp")
        return VirtualMachine.launch(spec, self.settings, deadline=soon(60), log=lambda _: None)


@pytest.fixture
def bench(tmp_path: Path, fake: FakeKvm, image: GuestImage) -> Iterator[Bench]:
    yield Bench(tmp_path, fake, image)
    assert not (tmp_path / "vm").exists()


def digest(recording: Recording, image: GuestImage, vcpus: int) -> bytes:
    reset = OVMF(str(image.firmware.path)).sev_es_reset_eip()
    vmsa = VMSA(SevMode.SEV_SNP, reset, CPU_SIGS[DEFAULT_VCPU_TYPE], GUEST_FEATURES)
    return kvm_fake.digest(recording.updates, list(vmsa.pages(vcpus)))


@pytest.mark.parametrize("vcpus", [1, 4])
def test_shim_launches_what_the_manifest_publishes(bench: Bench, image: GuestImage, vcpus: int) -> None:
    machine = bench.launch(vcpus)
    try:
        sev = machine.monitor.execute("query-sev", deadline=soon())
        iommu = machine.monitor.execute(
            "qom-get", {"path": "/machine/peripheral/scsi0", "property": "iommu_platform"}, deadline=soon()
        )
    finally:
        machine.destroy()
    assert (sev["state"], sev["sev-type"], sev["snp-policy"]) == ("running", "sev-snp", 0x30000)
    assert iommu is True
    recording = Recording(bench.record)
    assert digest(recording, image, vcpus) == image.measurement("snp", vcpus)
    assert recording.one("finish")["host_data"] == hashlib.sha256(POLICY).hexdigest()
    assert recording.one("start")["policy"] == 0x30000


def test_configured_id_block_is_the_one_for_this_vm(bench: Bench, image: GuestImage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    blocks = [
        idblock.make(idblock.Identity(image.measurement("snp", vcpus), guest_svn=vcpus, policy=0x3001F), key)
        for vcpus in (1, 2)
    ]
    bench.settings.id_block = tmp_path / "id-blocks.json"
    bench.settings.id_block.write_text(idblock_file.dumps(blocks))
    bench.launch(vcpus=2).destroy()
    recording = Recording(bench.record)
    finish = recording.one("finish")
    assert (finish["id_block_en"], finish["auth_key_en"]) == (1, 0)
    assert (finish["id_block"], finish["id_auth"]) == (blocks[1].block.hex(), blocks[1].auth.hex())
    assert recording.one("start")["policy"] == 0x3001F


def test_vm_without_its_id_block_is_not_launched(bench: Bench, image: GuestImage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    block = idblock.make(idblock.Identity(image.measurement("snp", 1)), key)
    bench.settings.id_block = tmp_path / "id-blocks.json"
    bench.settings.id_block.write_text(idblock_file.dumps([block]))
    with pytest.raises(Unavailable, match=r"idblock\.missing"):
        bench.launch(vcpus=2)
    assert not (bench.record / "events.jsonl").exists()


def test_failed_launch_says_what_it_means_and_leaves_nothing(bench: Bench) -> None:
    bench.fail = "102:5:11"
    with pytest.raises(Unavailable) as caught:
        bench.launch()
    assert "Bad measurement" in str(caught.value)
    assert "measured something else than the ID block says" in str(caught.value)


def test_this_host_is_refused_by_the_name_of_what_it_lacks(bench: Bench) -> None:
    """With the real helper: this machine has no SEV-SNP, or a test like this one would not be needed."""
    if Path("/dev/sev").exists():
        pytest.skip("this machine may have SEV-SNP")
    bench.settings.python = Path(sys.executable)
    with pytest.raises(Unavailable, match=r"cannot launch SEV-SNP guests: cpu\.[a-z_]+: "):
        bench.launch()
    assert not (bench.record / "events.jsonl").exists()
