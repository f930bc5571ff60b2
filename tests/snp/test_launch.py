# SPDX-License-Identifier: Apache-2.0
"""The SNP command line: what must be in it, what cannot be said, and that QEMU understands it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parma_snp.errors import SnpError
from parma_snp.host import ThisHost
from parma_snp.launch import (
    REQUIRED_PROPERTIES,
    IdBlock,
    SnpLaunch,
    check_firmware_size,
    machine,
    qemu_arguments,
    snp_object,
)
from parma_snp.qemu import ARGUMENTS, QUESTIONS, Qemu, understand

POLICY_HASH = hashlib.sha256(b"package policy\n").digest()
LAUNCH = SnpLaunch(
    firmware=Path("/image/OVMF.amdsev.fd"),
    kernel=Path("/image/vmlinuz"),
    initrd=Path("/image/initrd.img"),
    cmdline="console=ttyS0 parma.tee=snp",
    host_data=POLICY_HASH,
    cbitpos=51,
    vcpus=2,
    memory_mib=512,
)
ID_BLOCK = IdBlock(bytes(88) + (0x30000).to_bytes(8, "little"), bytes(4096), author_key=True)
MACHINE = (
    *("kernel-irqchip=split", "smm=off", "vmport=off", "confidential-guest-support=sev0", "memory-backend=ram1"),
    *("sata=off", "smbus=off", "usb=off", "i8042=off", "graphics=off"),
)
OBJECT = (
    *('"qom-type":"sev-snp-guest"', '"id":"sev0"', '"cbitpos":51', '"reduced-phys-bits":1', '"policy":196608'),
    *('"kernel-hashes":true', f'"host-data":"{base64.b64encode(POLICY_HASH).decode()}"'),
    f'"id-block":"{base64.b64encode(ID_BLOCK.block).decode()}"',
    *(f'"id-auth":"{base64.b64encode(ID_BLOCK.auth).decode()}"', '"author-key-enabled":true'),
)
SWITCHES = frozenset(("vmport", "smm", "sata", "smbus", "usb", "i8042", "graphics", "hpet", "pit"))
QEMU = Qemu((10, 0, 2), REQUIRED_PROPERTIES, SWITCHES, frozenset(("EPYC-v4", "EPYC-Milan")))


def properties(launch: SnpLaunch) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(snp_object(launch))
    return document


def test_host_data_is_standard_base64_of_the_hash() -> None:
    assert base64.b64decode(properties(LAUNCH)["host-data"], validate=True) == POLICY_HASH
    assert len(properties(LAUNCH)["host-data"]) == 44


def test_kernel_hashes_are_on_and_there_is_a_kernel() -> None:
    arguments = qemu_arguments(LAUNCH, QEMU)
    assert properties(LAUNCH)["kernel-hashes"] is True
    assert arguments[arguments.index("-kernel") + 1] == "/image/vmlinuz"
    assert arguments[arguments.index("-initrd") + 1] == "/image/initrd.img"
    assert arguments[arguments.index("-append") + 1] == LAUNCH.cmdline


def test_guest_cannot_be_reset_grown_or_given_other_firmware() -> None:
    arguments = qemu_arguments(LAUNCH, QEMU)
    assert "-no-reboot" in arguments
    assert "-nodefaults" in arguments
    assert arguments[arguments.index("-smp") + 1] == "2,maxcpus=2"
    assert arguments[arguments.index("-m") + 1] == "512M"
    assert arguments[arguments.index("-bios") + 1] == "/image/OVMF.amdsev.fd"
    assert "smm=off" in arguments[arguments.index("-machine") + 1]
    assert "confidential-guest-support=sev0" in arguments[arguments.index("-machine") + 1]


def test_whole_command_line() -> None:
    """Word for word: whatever is added here is added to what the guest must distrust."""
    assert qemu_arguments(replace(LAUNCH, id_block=ID_BLOCK), QEMU) == [
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        "-machine",
        ",".join(["q35", "accel=kvm", *MACHINE]),
        *("-cpu", "EPYC-v4", "-smp", "2,maxcpus=2", "-m", "512M"),
        "-object",
        '{"qom-type":"memory-backend-memfd","id":"ram1","size":536870912,"share":true,"prealloc":false}',
        "-object",
        "{" + ",".join(OBJECT) + "}",
        *("-bios", "/image/OVMF.amdsev.fd", "-kernel", "/image/vmlinuz", "-initrd", "/image/initrd.img"),
        *("-append", "console=ttyS0 parma.tee=snp"),
    ]


@pytest.mark.parametrize("version", [(9, 1, 0), (9, 2, 4), (10, 0, 2), (10, 2, 2), (11, 1, 3)])
def test_every_supported_version_is_launched(version: tuple[int, int, int]) -> None:
    assert qemu_arguments(LAUNCH, replace(QEMU, version=version)) == qemu_arguments(LAUNCH, QEMU)


def test_switches_that_a_qemu_does_not_have_are_left_out() -> None:
    """A build for servers may have no i8042 switch; and a new property that nobody asked for changes nothing."""
    bare = replace(QEMU, machine_properties=frozenset(("sata", "igvm-cfg")))
    assert machine(bare).endswith("memory-backend=ram1,sata=off")


@pytest.mark.parametrize(
    "qemu",
    [
        replace(QEMU, version=(9, 0, 4)),
        replace(QEMU, snp_properties=frozenset()),
        replace(QEMU, snp_properties=REQUIRED_PROPERTIES - {"kernel-hashes"}),
        replace(QEMU, cpu_models=frozenset(("qemu64",))),
    ],
    ids=["old", "no SNP", "no kernel-hashes", "no CPU model"],
)
def test_qemu_that_cannot_launch_it_is_refused(qemu: Qemu) -> None:
    with pytest.raises(SnpError) as caught:
        qemu_arguments(LAUNCH, qemu)
    assert caught.value.code == "launch.qemu"


def test_id_block_for_another_guest_policy_is_refused() -> None:
    with pytest.raises(SnpError, match="another guest policy"):
        replace(LAUNCH, id_block=ID_BLOCK, policy=0x3001F)


def test_this_qemu_says_what_it_can_do() -> None:
    qemu = find_qemu()
    if qemu is None:
        pytest.skip("no qemu-system-x86_64")
    found = ThisHost(Path(qemu)).qemu()
    assert found is not None
    assert found.version >= (7, 0)
    assert "EPYC-v4" in found.cpu_models
    assert found.machine_properties >= SWITCHES
    if found.version >= (9, 1):
        assert found.snp_properties >= REQUIRED_PROPERTIES


def test_qemu_without_snp_is_understood() -> None:
    answers = [
        '{"QMP": {"version": {}, "capabilities": []}}',
        '{"return": {}, "id": 0}',
        "qemu-system-x86_64: warning: something",
        '{"return": {"qemu": {"micro": 1, "minor": 2, "major": 9}, "package": ""}, "id": 1}',
        '{"error": {"class": "DeviceNotFound", "desc": "..."}, "id": 2}',
        '{"return": [{"name": "sata", "type": "bool"}], "id": 3}',
        '{"return": [{"name": "EPYC-v4"}], "id": 4}',
        '{"timestamp": {}, "event": "SHUTDOWN"}',
    ]
    found = understand("\n".join(answers))
    assert found == Qemu((9, 2, 1), frozenset(), frozenset(("sata",)), frozenset(("EPYC-v4",)))


@pytest.mark.parametrize("output", ["", "sh: qemu: not found", "[]", "1", '{"id": 1, "return": {"qemu": "10"}}'])
def test_what_is_no_qemu_is_not_understood(output: str) -> None:
    assert understand(output) is None


def test_questions_are_one_json_object_a_line() -> None:
    assert [json.loads(line)["execute"] for line in QUESTIONS.splitlines()][-1] == "quit"
    assert "-nodefaults" in ARGUMENTS


def test_default_policy_is_what_kvm_accepts_without_debug() -> None:
    assert properties(LAUNCH)["policy"] == 0x30000


def test_id_block_is_passed_whole() -> None:
    found = properties(replace(LAUNCH, id_block=ID_BLOCK))
    assert len(found["id-block"]) == 128
    assert len(found["id-auth"]) == 5464
    assert found["author-key-enabled"] is True


@pytest.mark.parametrize(("block", "auth"), [(95, 4096), (96, 4095), (96, 0), (96, 4097)])
def test_id_block_of_another_size_is_refused(block: int, auth: int) -> None:
    with pytest.raises(SnpError) as caught:
        IdBlock(bytes(block), bytes(auth), author_key=False)
    assert caught.value.code == "launch.id_block"


@pytest.mark.parametrize("policy", [0x20000, 0x10000, 0, 0x70000, 0x130000, 0x230000, 1 << 63 | 0x30000])
def test_policy_that_kvm_refuses_is_refused(policy: int) -> None:
    with pytest.raises(SnpError) as caught:
        replace(LAUNCH, policy=policy)
    assert caught.value.code == "launch.policy"


def test_debug_has_to_be_asked_for() -> None:
    with pytest.raises(SnpError, match="DEBUG"):
        replace(LAUNCH, policy=0xB0000)
    assert properties(replace(LAUNCH, policy=0xB0000, allow_debug=True))["policy"] == 0xB0000


def test_minimum_abi_may_be_demanded() -> None:
    assert properties(replace(LAUNCH, policy=0x3001F))["policy"] == 0x3001F


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"host_data": POLICY_HASH.hex().encode()}, "launch.host_data"),
        ({"host_data": b""}, "launch.host_data"),
        ({"cbitpos": 0}, "launch.cbitpos"),
        ({"vcpus": 0}, "launch.shape"),
        ({"memory_mib": 0}, "launch.shape"),
        ({"cmdline": "quiet\0init=/bin/sh"}, "launch.cmdline"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(SnpError) as caught:
        replace(LAUNCH, **change)
    assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 1, 65535, 4 * 1024 * 1024 + 4096])
def test_firmware_that_qemu_cannot_map_is_refused(size: int) -> None:
    with pytest.raises(SnpError):
        check_firmware_size(size)


def test_firmware_of_the_usual_size_is_accepted() -> None:
    check_firmware_size(4 * 1024 * 1024)


def find_qemu() -> str | None:
    private = Path(__file__).resolve().parents[2] / ".dev/prefix/bin/qemu-system-x86_64"
    return str(private) if private.exists() else shutil.which("qemu-system-x86_64")


def run_qemu(*arguments: str) -> subprocess.CompletedProcess[str]:
    qemu = find_qemu()
    if qemu is None:
        pytest.skip("no qemu-system-x86_64")
    fixed = ["-nodefaults", "-machine", "none", "-accel", "tcg", "-display", "none", "-monitor", "stdio"]
    return subprocess.run([qemu, *fixed, *arguments], input="quit\n", capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("launch", [LAUNCH, replace(LAUNCH, id_block=ID_BLOCK)], ids=["plain", "id block"])
def test_qemu_accepts_the_object(launch: SnpLaunch) -> None:
    arguments = qemu_arguments(launch, QEMU)
    values = [arguments[index + 1] for index, word in enumerate(arguments) if word == "-object"]
    done = run_qemu(*(word for value in values for word in ("-object", value)))
    assert done.returncode == 0, done.stderr


def test_qemu_refuses_what_we_would_never_send() -> None:
    """Shows that the test above can fail."""
    document = {**properties(LAUNCH), "host-data": POLICY_HASH.hex()}
    done = run_qemu("-object", json.dumps(document))
    assert done.returncode != 0
    assert "not equal to 32" in done.stderr


def test_qemu_reads_the_whole_command_line_up_to_the_missing_hardware(tmp_path: Path) -> None:
    """Without SNP the real binary stops at the accelerator, after it has understood every option."""
    qemu = find_qemu()
    if qemu is None:
        pytest.skip("no qemu-system-x86_64")
    for name in ("firmware", "kernel", "initrd"):
        (tmp_path / name).write_bytes(bytes(65536))
    launch = replace(
        LAUNCH, firmware=tmp_path / "firmware", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd", memory_mib=128
    )
    arguments = [word.replace("accel=kvm", "accel=tcg") for word in qemu_arguments(launch, QEMU)]
    done = subprocess.run(
        [qemu, *arguments, "-display", "none"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "sev-snp-guest: KVM required" in done.stderr or "SEV" in done.stderr
