# SPDX-License-Identifier: Apache-2.0
"""Files with many attestation cases each: did:x509 resolutions, launch measurements, pages that QEMU handed over.

Recordings of launches with Debian's firmware name it by hash; where a firmware with that hash is at hand (beside the
file, set up by ``./dev``, or installed), they are replayed, otherwise left out, saying so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from devtool.paths import PREFIX
from parma_snp.errors import SnpError
from parma_snp.measure import GUEST_FEATURES, digest_of

Complaint = str | None
"""What is wrong with our answer to a case; None when it is as the case wants it."""

_NAME: Final = "OVMF.amdsev.fd"
_FIRMWARES: Final = (PREFIX / "share" / _NAME, Path("/usr/share/ovmf") / _NAME)
_PAGE: Final = 4096
_NORMAL: Final = 1  # of SNP_LAUNCH_UPDATE: the content of these pages is measured, of the others only the place


def did_complaints(file: Path) -> Iterator[tuple[str, Complaint]]:
    """Each entry of a ``test-vectors.json`` of did:x509."""
    from parma_cose import did
    from parma_cose.chain import verify_chain
    from parma_cose.errors import CoseError

    for vector in json.loads(file.read_text()):
        chain = [_base64url(certificate) for certificate in vector["input"]["chain"]]
        try:
            found: object = did.resolve(vector["input"]["did"], verify_chain(chain))
        except CoseError:
            found = None
        wanted = vector["output"].get("document")
        yield str(vector["id"]), None if found == wanted else f"found {found}"


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def measurement_complaints(file: Path) -> Iterator[tuple[str, Complaint]]:
    """Each entry of a ``vectors.json`` of launch measurements."""
    for vector in json.loads(file.read_text()):
        kernel, initrd = (None if vector[key] is None else file.parent / vector[key] for key in ("kernel", "initrd"))
        name = f"{vector['ovmf']} {vector['vcpu_type']} x{vector['vcpus']} {vector['kernel']} {vector['append']}"
        try:
            found: str | None = digest_of(
                file.parent / vector["ovmf"],
                kernel,
                initrd,
                vector["append"] or "",
                vector["vcpus"],
                vector["vcpu_type"],
                guest_features=vector["guest_features"],
            ).hex()
        except SnpError:
            found = None
        yield name, None if found == vector["expected"] else f"found {found}"


def recorded_complaints(file: Path) -> Iterator[tuple[str, Complaint]]:
    """The digests of a recording that names firmware, kernel and initrd by their hashes only."""
    from sevsnpmeasure.sev_hashes import SevHashes

    recorded = json.loads(file.read_text())
    firmware = _firmware(file, lambda data: hashlib.sha256(data).hexdigest() == recorded["ovmf_sha256"])
    if firmware is None:
        return
    hashes = SevHashes("/dev/null", "", recorded["append"])
    hashes.kernel_hash = bytes.fromhex(recorded["kernel_sha256"])
    hashes.initrd_hash = bytes.fromhex(recorded["initrd_sha256"])
    for entry in recorded["digests"]:
        model, vcpus = entry["vcpu_type"], entry["vcpus"]
        found = _digest(firmware, hashes, vcpus, model, recorded["guest_features"]).hex()
        yield f"{_NAME} {model} x{vcpus}", None if found == entry["expected"] else f"found {found}"


def _digest(firmware: Path, hashes: Any, vcpus: int, model: str, features: int) -> bytes:
    """As the library computes it, but for the files whose hashes are given."""
    from sevsnpmeasure import guest
    from sevsnpmeasure.gctx import GCTX
    from sevsnpmeasure.ovmf import OVMF
    from sevsnpmeasure.vmm_types import VMMType

    image, context = OVMF(str(firmware)), GCTX()
    context.update_normal_pages(image.gpa(), image.data())
    guest.snp_update_metadata_pages(context, image, hashes, VMMType.QEMU)
    for page in _vcpu_pages(firmware, vcpus, model, features):
        context.update_vmsa_page(page)
    return bytes(context.ld())


def _vcpu_pages(firmware: Path, vcpus: int, model: str, features: int) -> list[bytes]:
    from sevsnpmeasure.ovmf import OVMF
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS
    from sevsnpmeasure.vmsa import VMSA

    eip = OVMF(str(firmware)).sev_es_reset_eip()
    return [bytes(page) for page in VMSA(SevMode.SEV_SNP, eip, CPU_SIGS[model], features).pages(vcpus)]


def trace_complaints(file: Path) -> Iterator[tuple[str, Complaint]]:
    """A recording of the pages of one launch: their digest, and where the firmware's metadata puts them."""
    from sevsnpmeasure.gctx import GCTX, ZEROS
    from sevsnpmeasure.ovmf import OVMF
    from sevsnpmeasure.vcpu_types import CPU_SIGS

    trace = json.loads(file.read_text())
    first, *others = trace["updates"]
    firmware = _firmware(file, lambda data: hashlib.sha384(data).hexdigest() == first["sha384_of_content"])
    if firmware is None:
        return
    image, context = OVMF(str(firmware)), GCTX()
    context.update_normal_pages(int(first["gpa"], 0), image.data())
    for update in others:
        start, size = int(update["gpa"], 0), int(update["length"], 0)
        for offset in range(0, size, _PAGE):
            content = bytes.fromhex(update["sha384_of_content"]) if update["type"] == _NORMAL else ZEROS
            context._update(update["type"], start + offset, content)  # noqa: SLF001 - it has no other way in by hash
    models = {hex(signature): model for model, signature in CPU_SIGS.items()}
    model = models[trace["vcpus"][0]["rdx"]]
    for page in _vcpu_pages(firmware, len(trace["vcpus"]), model, GUEST_FEATURES):
        context.update_vmsa_page(page)
    found = context.ld().hex()
    yield "launch digest", None if found == trace["launch_digest"] else f"found {found}"
    metadata = {(item.gpa, item.size) for item in image.metadata_items()}
    pages = {(int(update["gpa"], 0), int(update["length"], 0)) for update in others}
    yield "page ranges", None if pages == metadata else f"found {sorted(metadata ^ pages)}"
    reset = image.sev_es_reset_eip()
    starts = [(0xFFF0, 0xFFFF0000)] + [(reset & 0xFFFF, reset & ~0xFFFF)] * (len(trace["vcpus"]) - 1)
    recorded = [(int(vcpu["rip"], 0), int(vcpu["cs_base"], 0)) for vcpu in trace["vcpus"]]
    yield "reset vectors", None if recorded == starts else f"found {starts}"


def _firmware(file: Path, fits: Callable[[bytes], bool]) -> Path | None:
    for path in (file.with_name(_NAME), *_FIRMWARES):
        if path.is_file() and fits(path.read_bytes()):
            return path
    print(f"{file.parent.name}/{file.name}: left out: the firmware it was recorded with is not here", file=sys.stderr)
    return None


FILES: Final[dict[str, Callable[[Path], Iterator[tuple[str, Complaint]]]]] = {
    "didx509/test-vectors.json": did_complaints,
    "measurement/vectors.json": measurement_complaints,
    "measurement/debian-ovmf-amdsev.json": recorded_complaints,
    "measurement/qemu-launch-trace.json": trace_complaints,
}
"""By their place."""
