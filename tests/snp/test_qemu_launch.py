# SPDX-License-Identifier: Apache-2.0
"""QEMU executes the whole SNP launch against a fake KVM, and hands over exactly what we predict."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sevsnpmeasure.ovmf import OVMF
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from parma_snp import idblock
from parma_snp.host import ThisHost
from parma_snp.launch import IdBlock, SnpLaunch, qemu_arguments
from parma_snp.measure import GUEST_FEATURES, cpu_signature, launch_digest
from tests.snp import kvm_fake
from tests.snp.kvm_fake import FakeKvm, Recording, Update, Vcpu

ROOT = Path(__file__).resolve().parents[2]
PREFIX = ROOT / ".dev/prefix"
QEMU = Path(os.environ.get("PARMA_TEST_QEMU", PREFIX / "bin/qemu-system-x86_64"))
"""Another version can be put here: all of 9.1 to 11.x must pass."""
FIRMWARE = PREFIX / "share/OVMF.amdsev.fd"
TRACE = ROOT.parent / "shared/vectors/snp/measurement/qemu-launch-trace.json"
CMDLINE = "console=ttyS0"
HOST_DATA = hashlib.sha256(b"package policy\n").digest()

REASON = kvm_fake.missing() or ("" if QEMU.exists() else "no QEMU in .dev: run ./dev setup")
needs_qemu = pytest.mark.skipif(bool(REASON), reason=REASON or "-")
pytestmark = needs_qemu


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeKvm:
    return kvm_fake.build(tmp_path_factory.mktemp("kvm_fake"))


@pytest.fixture
def launch(tmp_path: Path, fake: FakeKvm) -> SnpLaunch:
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd.img"
    # QEMU wants a kernel that looks like one: the boot protocol's header (2.15, loaded high, initrd below 2 GiB).
    header = bytearray(64 * 1024)
    header[0x1F1], header[0x211] = 4, 1
    header[0x1FE:0x200], header[0x202:0x208] = b"\x55\xaa", b"HdrS\x0f\x02"
    header[0x22C:0x230] = (0x7FFFFFFF).to_bytes(4, "little")
    kernel.write_bytes(header)
    initrd.write_bytes(b"initrd" * 1000)
    return SnpLaunch(FIRMWARE, kernel, initrd, CMDLINE, HOST_DATA, cbitpos=51, vcpus=2, memory_mib=128)


def start(fake: FakeKvm, launch: SnpLaunch, record: Path, *, fail: str = "") -> subprocess.CompletedProcess[str]:
    """Run QEMU to the point where the guest would run, then end it."""
    record.mkdir()
    qemu = ThisHost(QEMU).qemu()
    assert qemu is not None
    told = f'"cbitpos":{launch.cbitpos}'
    # The one lie: this machine's processor has no such C-bit, and QEMU asks it.
    arguments = [word.replace(told, f'"cbitpos":{fake.cbitpos}') for word in qemu_arguments(launch, qemu)]
    return subprocess.run(
        [str(QEMU), "-L", str(PREFIX / "share/qemu"), "-display", "none", "-qmp", "stdio", *arguments],
        input='{"execute":"qmp_capabilities"}\n{"execute":"query-sev","id":"sev"}\n{"execute":"quit"}\n',
        env={**os.environ, **fake.environment(record, fail=fail)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def vmsas(vcpus: int, model: str) -> list[bytes]:
    """The VMSA pages that KVM would make, which the fake one cannot."""
    return list(
        VMSA(SevMode.SEV_SNP, OVMF(str(FIRMWARE)).sev_es_reset_eip(), cpu_signature(model), GUEST_FEATURES).pages(vcpus)
    )


def record(fake: FakeKvm, launch: SnpLaunch, directory: Path) -> Recording:
    done = start(fake, launch, directory)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    (sev,) = (answer["return"] for answer in answers if answer.get("id") == "sev")
    assert (sev["state"], sev["sev-type"], sev["snp-policy"]) == ("running", "sev-snp", launch.policy)
    return Recording(directory)


SHAPES = [("EPYC-v4", 1), ("EPYC-v4", 4), ("EPYC-v4", 64), ("EPYC-Milan", 2), ("EPYC-Genoa", 2), ("EPYC-Turin", 2)]
VERSIONS = ["EPYC-v5", "EPYC-Rome-v5", "EPYC-Milan-v4", "EPYC-Genoa-v3", "EPYC-Turin-v2"]
"""The last version of each model that QEMU 11.1 has."""
MODELS = SHAPES + [(model, 1) for model in VERSIONS]


@pytest.mark.parametrize(("model", "vcpus"), MODELS)
def test_predicted_measurement_is_that_of_the_pages_handed_over(
    fake: FakeKvm, launch: SnpLaunch, tmp_path: Path, model: str, vcpus: int
) -> None:
    qemu = ThisHost(QEMU).qemu()
    if qemu is not None and model not in qemu.cpu_models:
        pytest.skip(f"{qemu.name} has no {model}")
    launch = replace(launch, vcpu_type=model, vcpus=vcpus)
    recording = record(fake, launch, tmp_path / "record")
    predicted = launch_digest(FIRMWARE, launch.kernel, launch.initrd, CMDLINE, vcpus, model)
    assert kvm_fake.digest(recording.updates, vmsas(vcpus, model)) == predicted
    reset = OVMF(str(FIRMWARE)).sev_es_reset_eip()
    first = Vcpu(0xFFF0, 0xFFFF0000, cpu_signature(model))
    other = Vcpu(reset & 0xFFFF, reset & 0xFFFF0000, cpu_signature(model))
    assert recording.vcpus == [first, *[other] * (vcpus - 1)]


def test_whole_conversation_is_as_the_launch_says(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    recording = record(fake, launch, tmp_path / "record")
    assert [vm["type"] for vm in recording.all("create_vm")] == [4]
    assert recording.one("init2") == {"vmsa_features": GUEST_FEATURES & ~1}  # KVM adds SNPActive itself
    assert recording.one("start") == {"policy": 0x30000, "gosvw": "00" * 16, "flags": 0}
    assert recording.one("finish") == {
        "host_data": HOST_DATA.hex(),
        "id_block_en": 0,
        "auth_key_en": 0,
        "vcek_disabled": 0,
        "id_block": "",
        "id_auth": "",
    }
    order = [event["event"] for event in recording.events if event["event"] in ("init2", "start", "update", "finish")]
    assert order == ["init2", "start", *["update"] * len(recording.updates), "finish"]
    memory = sum(event["length"] for event in recording.all("guest_memfd"))
    assert memory >= launch.memory_mib << 20, "guest memory is not private"


def test_firmware_and_hash_page_are_handed_over_byte_for_byte(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    recording = record(fake, launch, tmp_path / "record")
    firmware, hashes = (update for update in recording.updates if update.type == kvm_fake.NORMAL)
    image = FIRMWARE.read_bytes()
    table = OVMF(str(FIRMWARE)).sev_hashes_table_gpa()
    page = SevHashes(str(launch.kernel), str(launch.initrd), CMDLINE).construct_page(table & 0xFFF)
    assert firmware == Update(kvm_fake.NORMAL, (1 << 32) - len(image), image)
    assert hashes == Update(kvm_fake.NORMAL, table & ~0xFFF, page)


def test_id_block_arrives_byte_for_byte(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    digest = launch_digest(FIRMWARE, launch.kernel, launch.initrd, CMDLINE, launch.vcpus)
    id_key, author_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    signed = idblock.make(idblock.Identity(digest, guest_svn=7), id_key, author_key)
    finish = record(fake, replace(launch, id_block=signed), tmp_path / "record").one("finish")
    assert (finish["id_block_en"], finish["auth_key_en"]) == (1, 1)
    arrived = IdBlock(bytes.fromhex(finish["id_block"]), bytes.fromhex(finish["id_auth"]), author_key=True)
    assert arrived == signed
    assert idblock.check(arrived).identity.measurement == digest


def test_debug_policy_arrives_when_asked_for(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    recording = record(fake, replace(launch, policy=0xB0000, allow_debug=True), tmp_path / "record")
    assert recording.one("start")["policy"] == 0xB0000


@pytest.mark.skipif(not TRACE.exists(), reason="no shared vectors")
def test_page_ranges_are_those_recorded_elsewhere(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    """Another recording, of other tools, with the same firmware: all but the hash page and CPUID are equal."""
    trace = json.loads(TRACE.read_text())
    recording = record(fake, launch, tmp_path / "record")
    wanted = [(entry["type"], int(entry["gpa"], 0), int(entry["length"], 0)) for entry in trace["updates"]]
    if hashlib.sha384(FIRMWARE.read_bytes()).hexdigest() != trace["updates"][0]["sha384_of_content"]:
        pytest.skip("another version of the firmware")
    assert [(update.type, update.gpa, len(update.content)) for update in recording.updates] == wanted
    assert [(hex(vcpu.rip), hex(vcpu.cs_base), hex(vcpu.rdx)) for vcpu in recording.vcpus] == [
        (entry["rip"], entry["cs_base"], entry["rdx"]) for entry in trace["vcpus"]
    ]


@pytest.mark.parametrize("change", ["kernel", "initrd", "cmdline"])
def test_another_kernel_initrd_or_command_line_changes_the_digest(
    fake: FakeKvm, launch: SnpLaunch, tmp_path: Path, change: str
) -> None:
    before = record(fake, launch, tmp_path / "before")
    if change == "cmdline":
        launch = replace(launch, cmdline=CMDLINE + " ")
    else:
        path: Path = getattr(launch, change)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    after = record(fake, launch, tmp_path / "after")
    pages = vmsas(launch.vcpus, launch.vcpu_type)
    assert kvm_fake.digest(before.updates, pages) != kvm_fake.digest(after.updates, pages)


def test_host_data_is_what_qemu_decodes(fake: FakeKvm, launch: SnpLaunch, tmp_path: Path) -> None:
    """Bytes that standard and URL-safe base64 write differently."""
    value = b"\xfb\xff\xfe" * 10 + b"\xff\xff"
    assert b"+" in base64.b64encode(value)
    recording = record(fake, replace(launch, host_data=value), tmp_path / "record")
    assert recording.one("finish")["host_data"] == value.hex()
