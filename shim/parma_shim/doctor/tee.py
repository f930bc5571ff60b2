# SPDX-License-Identifier: Apache-2.0
"""Probes of what only one tee needs beside the host's hardware: keys, certificates, ID blocks, the accelerator."""

from __future__ import annotations

from typing import Final

from parma_shim.doctor.host import Surroundings
from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_snp.errors import SnpError
from parma_wire.errors import ParmaError

_FETCH: Final = "fetch this processor's VCEK (docs/snp-hardware.md, parma certificates) and set certificates"
NO_CERTIFICATES: Final = Problem(
    "fail",
    "certificates is not set, or the file cannot be read",
    "No evidence verifies on this host, and with attestation = 'required' no container starts.",
    _FETCH,
)
CERTIFICATES_UNUSED: Final = Problem(
    "warn",
    "certificates is not set, or the file cannot be read; attestation = 'reported'",
    "Guests run, and a relying party that fetches the certificate from AMD can verify them; but the status shown on "
    "this host is failed.",
    _FETCH,
)


def _examine_certificates(host: Surroundings) -> Outcome:
    path = host.config.certificates
    text = (host.text(str(path)) if path is not None else None) or ""
    # A PEM chain, or the cloud's host-amd-cert document, plain or in base64.
    if "BEGIN CERTIFICATE" in text or text.startswith("eyJ"):
        return ok(str(path))
    return (NO_CERTIFICATES if host.config.attestation == "required" else CERTIFICATES_UNUSED).found()


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


def _examine_emulated(host: Surroundings) -> Outcome:
    del host
    return EMULATED.found()


SNP_PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe(
        "snp.certificates",
        "this processor's certificate",
        _examine_certificates,
        (NO_CERTIFICATES, CERTIFICATES_UNUSED),
    ),
    Probe("snp.id_block", "ID blocks", _examine_id_block, (NO_ID_BLOCK, BAD_ID_BLOCK, ID_BLOCK_UNUSED)),
)
EMULATED_PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe("emulated.protection", "protection from the host", _examine_emulated, (EMULATED,)),
    Probe("emulated.accelerator", "KVM", _examine_accelerator, (NO_KVM,)),
)
