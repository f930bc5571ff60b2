# SPDX-License-Identifier: Apache-2.0
"""Probes of what only one tee needs beside the host's hardware: keys, certificates, ID blocks, the accelerator."""

from __future__ import annotations

from typing import Final

from parma_shim.doctor.host import Surroundings
from parma_shim.vm.hardware import ALLOWED, SEV_SNP
from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_snp.errors import SnpError
from parma_wire.errors import ParmaError

_GET_CERTIFICATE: Final = "parma certificates --this-host --fetch FILE, and set certificates to FILE"
NO_CERTIFICATES: Final = Problem(
    "fail",
    "{reason}",
    "Without this processor's certificate no evidence verifies on this host, and with attestation = required no "
    "container starts in a VM whose evidence does not.",
    _GET_CERTIFICATE,
)
NO_CERTIFICATES_REPORTED: Final = Problem(
    "warn",
    "{reason} (attestation = reported)",
    "Containers start, but their status on this host is failed.",
    _GET_CERTIFICATE,
)


def _examine_certificates(host: Surroundings) -> Outcome:
    path = host.config.certificates
    reason = "certificates is not set" if path is None else _unreadable(host, str(path))
    if not reason:
        return ok(str(path))
    problem = NO_CERTIFICATES if host.config.attestation == "required" else NO_CERTIFICATES_REPORTED
    return problem.found(reason=reason)


def _unreadable(host: Surroundings, path: str) -> str:
    """Why a file is not certificates in one of the forms that the shim reads; "" if it is."""
    from parma_snp.sources import read_certificates

    data = host.data(path)
    if data is None:
        return f"{path} cannot be read"
    try:
        read_certificates(data)
    except SnpError as error:
        return f"{path}: {error.message}"
    return ""


NO_ID_BLOCK: Final = Problem(
    "fail",
    "{path} cannot be read",
    "The configuration asks for signed ID blocks, so nothing is launched without.",
    "parma id-block make --image DIR --id-key KEY.pem --out FILE, or remove id_block from the configuration",
)
BAD_ID_BLOCK: Final = Problem(
    "fail",
    "{reason}",
    "The firmware would refuse the launch.",
    "parma id-block make --image DIR --id-key KEY.pem --out FILE",
)
ID_BLOCK_UNUSED: Final = Problem(
    "skip", "id_block is not set", "Launches are not signed, which is usual.", "parma id-block make, if wanted"
)


def _examine_id_block(host: Surroundings) -> Outcome:
    from parma_snp import idblock_file

    path = host.config.id_block
    if path is None:
        return ID_BLOCK_UNUSED.found()
    text = host.text(str(path))
    if text is None:
        return NO_ID_BLOCK.found(path=path)
    try:
        blocks = idblock_file.loads(text.encode())
        image = host.image()
        for vcpus in image.shapes("snp"):
            idblock_file.select(text.encode(), image.measurement("snp", vcpus))
    except (SnpError, ParmaError) as error:
        return BAD_ID_BLOCK.found(reason=error.message)
    return ok(f"{len(blocks)} ID blocks, one for each shape of the guest image")


NO_KVM: Final = Problem(
    "warn",
    "no /dev/kvm that can be opened",
    "QEMU emulates the processor: containers start ten times slower.",
    "enable virtualisation in the BIOS, load kvm_amd or kvm_intel, and run as root or in the group kvm",
)


def _examine_accelerator(host: Surroundings) -> Outcome:
    if host.config.accelerator == "tcg":
        return ok("software emulation, as configured")
    if host.openable("/dev/kvm") != "":
        return NO_KVM.found()
    return ok("/dev/kvm can be opened; the first start of a container finds out whether it works")


EMULATED: Final = Problem(
    "warn",
    'tee = "emulated"',
    "For trying it out. The host signs the reports itself: they protect nothing, and no relying party accepts them "
    "unless it says so twice.",
    'on SEV-SNP hardware: tee = "snp"',
)


NEEDLESSLY_EMULATED: Final = Problem(
    "fail",
    'tee = "emulated" on a machine with SEV-SNP',
    "Where the real thing is there, emulating it is a mistake until it is said twice: no container starts.",
    'tee = "snp"; or emulated_on_snp = "allowed", to try something out',
)


def _examine_emulated(host: Surroundings) -> Outcome:
    real = (host.text(str(SEV_SNP)) or "").strip() == "Y"
    return NEEDLESSLY_EMULATED.found() if real and host.config.emulated_on_snp != ALLOWED else EMULATED.found()


SNP_PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe(
        "snp.certificates",
        "this processor's certificate",
        _examine_certificates,
        (NO_CERTIFICATES, NO_CERTIFICATES_REPORTED),
    ),
    Probe("snp.id_block", "ID blocks", _examine_id_block, (NO_ID_BLOCK, BAD_ID_BLOCK, ID_BLOCK_UNUSED)),
)
EMULATED_PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe("emulated.protection", "protection from the host", _examine_emulated, (EMULATED, NEEDLESSLY_EMULATED)),
    Probe("emulated.accelerator", "KVM", _examine_accelerator, (NO_KVM,)),
)
