# SPDX-License-Identifier: Apache-2.0
"""Probes of what launches the guest: QEMU and the guest's firmware."""

from __future__ import annotations

from typing import Final

from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_snp.errors import SnpError
from parma_snp.host import Host
from parma_snp.launch import MIN_QEMU, REQUIRED_PROPERTIES, check_firmware_size
from parma_snp.measure import DEFAULT_VCPU_TYPE

NO_QEMU: Final = Problem(
    "fail",
    "QEMU cannot be run",
    "The program that `qemu` names in the configuration is missing, or does not start.",
    "install qemu-system-x86 9.1 or later, or set qemu in the configuration",
)
OLD_QEMU: Final = Problem(
    "fail",
    "{name}",
    "QEMU has launched SNP guests since 9.1.",
    "install qemu-system-x86 9.1 or later (Debian 13 has 10.0), or set qemu in the configuration",
)


def _examine_version(host: Host) -> Outcome:
    qemu = host.qemu()
    if qemu is None:
        return NO_QEMU.found()
    return ok(qemu.name) if qemu.version >= MIN_QEMU else OLD_QEMU.found(name=qemu.name)


NO_OBJECT: Final = Problem(
    "fail",
    "{name} has no object sev-snp-guest",
    "This QEMU was built without SEV, or without KVM.",
    "install a QEMU that was built for x86-64 with KVM",
)
NO_PROPERTY: Final = Problem(
    "fail",
    "{name}: its object sev-snp-guest has no {properties}",
    "A QEMU from a development series: the properties got their names only with 9.1.",
    "install a released QEMU, 9.1 or later",
)
QEMU_SKIPPED: Final = Problem("skip", "QEMU cannot be run", "See qemu.version.", "see qemu.version")


def _examine_object(host: Host) -> Outcome:
    qemu = host.qemu()
    if qemu is None:
        return QEMU_SKIPPED.found()
    if not qemu.snp_properties:
        return NO_OBJECT.found(name=qemu.name)
    missing = REQUIRED_PROPERTIES - qemu.snp_properties
    if missing:
        return NO_PROPERTY.found(name=qemu.name, properties=", ".join(sorted(missing)))
    return ok(f"sev-snp-guest, {len(qemu.snp_properties)} properties")


NO_CPU_MODEL: Final = Problem(
    "fail",
    "{name} has no CPU model {model}",
    "The model's signature is part of the launch measurement, so no other can take its place.",
    "install a QEMU with this model",
)


def _examine_cpu_model(host: Host) -> Outcome:
    qemu = host.qemu()
    if qemu is None:
        return QEMU_SKIPPED.found()
    if DEFAULT_VCPU_TYPE not in qemu.cpu_models:
        return NO_CPU_MODEL.found(name=qemu.name, model=DEFAULT_VCPU_TYPE)
    return ok(DEFAULT_VCPU_TYPE)


NO_HASH_TABLE: Final = Problem(
    "fail",
    "{path} has no SEV hash table",
    "It is a firmware that would boot any kernel, so QEMU refuses it: guest firmware hashes table area is invalid.",
    "use OVMF.amdsev.fd (Debian: ovmf-amdsev); a guest image of `parma image build` has it",
)
NO_FIRMWARE: Final = Problem(
    "fail",
    "{reason}",
    "The file cannot be read, or is not an OVMF with SEV-SNP metadata.",
    "use OVMF.amdsev.fd (Debian: ovmf-amdsev); a guest image of `parma image build` has it",
)
FIRMWARE_SKIPPED: Final = Problem("skip", "no guest image", "See image.manifest.", "see image.manifest")


def _examine_firmware(host: Host) -> Outcome:
    from parma_snp.measure import has_hash_table

    path = host.firmware()
    if path is None:
        return FIRMWARE_SKIPPED.found()
    try:
        present = has_hash_table(path)
        check_firmware_size(path.stat().st_size)
    except (SnpError, OSError) as error:
        return NO_FIRMWARE.found(reason=getattr(error, "message", error))
    return ok(f"{path} checks kernel, initrd and command line") if present else NO_HASH_TABLE.found(path=path)


PROBES: Final[tuple[Probe[Host], ...]] = (
    Probe("qemu.version", "QEMU 9.1 or later", _examine_version, (NO_QEMU, OLD_QEMU)),
    Probe(
        "qemu.sev_snp_guest",
        "QEMU's object sev-snp-guest, with every property that is used",
        _examine_object,
        (NO_OBJECT, NO_PROPERTY, QEMU_SKIPPED),
    ),
    Probe("qemu.cpu_model", f"QEMU's CPU model {DEFAULT_VCPU_TYPE}", _examine_cpu_model, (NO_CPU_MODEL, QEMU_SKIPPED)),
    Probe(
        "firmware.hash_table",
        "a guest firmware that checks what it boots",
        _examine_firmware,
        (NO_HASH_TABLE, NO_FIRMWARE, FIRMWARE_SKIPPED),
    ),
)
