# SPDX-License-Identifier: Apache-2.0
"""Evidence put together on the host: the guest's report with all that a relying party needs beside it.

Nothing here is believed by anybody; a relying party verifies it. Imports cryptography: for helpers and commands only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parma_snp.binding import report_data_for_nonce
from parma_snp.evidence import TEES, Evidence
from parma_snp.report import Report, parse
from parma_wire.errors import Malformed

ENDORSEMENTS: Final = "endorsements"
"""Folder in an image directory (``parma image sign``)."""

SOURCES: Final = ("tee", "certificates", "authority", "image_dir")
"""Keys of :func:`collect`'s ``sources``; ``group.json`` keeps them for ``parma evidence``."""


def collect(sources: Mapping[str, Any], *, report: bytes, nonce: bytes, policy: bytes) -> Evidence:
    """Evidence over ``nonce`` (64 bytes). ``sources`` says where the host keeps certificates and endorsements.

    Raises SnpError when the report is none or the host's certificates cannot be used, OSError, Malformed.
    """
    tee = next((tee for tee in TEES if tee == sources["tee"]), None)
    if tee is None:
        raise Malformed(f"unknown tee {sources['tee']!r}")
    if tee == "none":
        return Evidence(tee, policy)
    parsed = parse(report)
    return Evidence(
        tee=tee,
        policy=policy,
        report=report,
        certificates=certificates(sources, parsed),
        report_data=report_data_for_nonce(nonce),
        endorsement=endorsement(Path(sources["image_dir"]), parsed.measurement),
    )


def certificates(sources: Mapping[str, Any], report: Report) -> str:
    """The chain for the report's signing key as PEM: the emulated processor's own, or what the host keeps of AMD's.

    Empty when the host has none, which the verdict then says.
    """
    if sources["tee"] == "emulated":
        from parma_snp.emulated import ensure_authority

        return ensure_authority(Path(sources["authority"])).certificate_chain
    if not sources["certificates"]:
        return ""
    from parma_snp.sources import read_certificates

    return read_certificates(Path(sources["certificates"]).read_bytes(), report).to_pem()


def endorsement(image_dir: Path, measurement: bytes) -> bytes:
    """The image's endorsement of a measurement (48 bytes); empty when nobody has signed it."""
    try:
        return (image_dir / ENDORSEMENTS / f"{measurement.hex()}.cose").read_bytes()
    except FileNotFoundError:
        return b""
