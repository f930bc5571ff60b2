# SPDX-License-Identifier: Apache-2.0
"""Helper: the processor's certificates as the cloud's host-amd-cert document, and the guest image's endorsement.

Request: see ``parma_shim.endorsements``. Answer: ``{"host_amd_cert": base64, "reference_info": base64,
"log": [lines]}``, each empty when the host has none.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from parma_shim.evidence import certificates, endorsement
from parma_shim.helpers.main import Document, run
from parma_snp import hostcert
from parma_snp import report as reports
from parma_snp.certificates import CertificateChain
from parma_snp.errors import SnpError
from parma_wire.errors import Malformed


def endorse(request: Document) -> Document:
    """Both documents. What the host has and cannot use is a line for its log."""
    log: list[str] = []
    try:
        report = reports.parse(base64.b64decode(request["report"], validate=True))
    except (KeyError, ValueError, SnpError) as error:
        raise Malformed(f"the request makes no sense: {error!r}") from error
    return {
        "host_amd_cert": _host_amd_cert(request, report, log),
        "reference_info": base64.b64encode(endorsement(Path(request["image_dir"]), report.measurement)).decode(),
        "log": log,
    }


def _host_amd_cert(request: Document, report: reports.Report, log: list[str]) -> str:
    try:
        pem = certificates(request, report)
        if not pem:
            return ""
        return hostcert.encode(CertificateChain.from_pem(pem.encode()), report).decode()
    except (SnpError, OSError) as error:
        log.append(f"containers get no certificates of the processor: {error}")
        return ""


if __name__ == "__main__":
    sys.exit(run(endorse))
