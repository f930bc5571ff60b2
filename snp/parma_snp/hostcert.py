# SPDX-License-Identifier: Apache-2.0
"""The cloud's ``host-amd-cert`` document: base64 of JSON with the VCEK for this host's current TCB.

As served by Azure's THIM cache and expected by its sidecars: ``vcekCert`` (PEM), ``tcbm`` (REPORTED_TCB as a hex
number), ``certificateChain`` (PEM of ASK and ARK), ``cacheControl`` (seconds). Untrusted host data.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final

from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_snp.report import Report
from parma_snp.strict_json import Object

MAX_SIZE: Final = 64 * 1024
_CODE: Final = "hostcert.format"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class HostCertificates:
    """The document, decoded. ``tcbm`` is the 8 bytes of REPORTED_TCB in the report's order."""

    chain: CertificateChain
    tcbm: bytes

    def check_report(self, report: Report) -> None:
        """Raise SnpError ``hostcert.tcbm`` unless the certificates are for the report's REPORTED_TCB."""
        reported = report.tcb_bytes("reported")
        if reported != self.tcbm:
            raise SnpError(
                "hostcert.tcbm",
                "the certificates are for another TCB",
                expected=reported[::-1].hex(),
                found=self.tcbm[::-1].hex(),
                hint="the host must fetch them again after a firmware update",
            )


def parse(encoded: bytes) -> HostCertificates:
    """Decode an untrusted ``host-amd-cert-base64`` file. Raises SnpError ``hostcert.format`` or ``cert.parse``."""
    if len(encoded) > MAX_SIZE:
        raise SnpError(_CODE, "the document is too large", expected=f"at most {MAX_SIZE} bytes")
    try:
        # Line breaks are what tools that print base64 add; they carry nothing.
        data = base64.b64decode(b"".join(encoded.split()), validate=True)
    except binascii.Error as error:
        raise SnpError(_CODE, f"not base64: {error}") from None
    return parse_json(data)


def parse_json(data: bytes) -> HostCertificates:
    """Read the untrusted JSON inside. Raises SnpError ``hostcert.format`` or ``cert.parse``."""
    document = Object.parse(data, code=_CODE, limit=MAX_SIZE)
    tcbm = document.text("tcbm").lower()
    if not 0 < len(tcbm) <= 16 or not set(tcbm) <= set("0123456789abcdef"):
        raise SnpError(_CODE, "tcbm is not a 64-bit hex number", found=tcbm[:32])
    leaf, authorities = document.text("vcekCert"), document.text("certificateChain")
    counts = tuple(text.count(_BEGIN) for text in (leaf, authorities))
    if counts != (1, 2):
        expected, found = ("{} and {} certificates".format(*numbers) for numbers in ((1, 2), counts))
        raise SnpError(_CODE, "not a VCEK, and its ASK and ARK", expected=expected, found=found)
    chain = CertificateChain.from_pem(f"{leaf}\n{authorities}".encode())
    return HostCertificates(chain, int(tcbm, 16).to_bytes(8, "little"))


def encode(chain: CertificateChain, report: Report, *, max_age: int = 86400) -> bytes:
    """The document for a report and its chain; ``max_age`` in seconds."""
    leaf, intermediate, root = chain.to_pem().split("-----END CERTIFICATE-----\n")[:3]
    end = "-----END CERTIFICATE-----\n"
    document = {
        "vcekCert": leaf + end,
        "tcbm": report.tcb_bytes("reported")[::-1].hex(),
        "certificateChain": intermediate + end + root + end,
        "cacheControl": str(max_age),
    }
    return base64.b64encode(json.dumps(document).encode())
