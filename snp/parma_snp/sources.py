# SPDX-License-Identifier: Apache-2.0
"""The forms in which a platform hands over a processor's certificates, told apart by how they begin.

* PEM: VCEK or VLEK, ASK or ASVK, ARK; or the leaf alone, completed with AMD's bundled certificates
* DER: the leaf alone, as AMD's key distribution service gives it
* ``host-amd-cert``: the JSON document of a cloud's host, plain or in base64
* the certificate table of an extended report (also ``auxblob`` of configfs-tsm)
"""

from __future__ import annotations

from typing import Final

from parma_snp import certtable, hostcert
from parma_snp.certificates import CertificateChain, complete_chain
from parma_snp.errors import SnpError
from parma_snp.report import Report

MAX_SIZE: Final = 256 * 1024
_DER_SEQUENCE: Final = b"\x30\x82"
_BASE64_OF_BRACE: Final = b"eyJ"


def read_certificates(data: bytes, report: Report | None = None) -> CertificateChain:
    """The chain in an untrusted file of any of these forms; nothing of it is verified yet.

    ``report``, if given, must be of the TCB for which a host-amd-cert document says it is.
    Raises SnpError of the ``cert``, ``hostcert`` or ``certtable`` family.
    """
    if len(data) > MAX_SIZE:
        raise SnpError("cert.parse", "the certificates are too large", expected=f"at most {MAX_SIZE} bytes")
    start = data.lstrip()[: len(_BASE64_OF_BRACE)]
    if b"-----BEGIN" in data[:4096] and start[:1] != b"{":
        return CertificateChain.from_pem(data)
    if data.startswith(_DER_SEQUENCE):
        return complete_chain(data)
    if start[:1] == b"{" or start == _BASE64_OF_BRACE:
        document = hostcert.parse_json(data) if start[:1] == b"{" else hostcert.parse(data)
        if report is not None:
            document.check_report(report)
        return document.chain
    return certtable.chain_of(certtable.parse(data))
