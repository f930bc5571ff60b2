# SPDX-License-Identifier: Apache-2.0
"""The certificate table that comes with an extended report, made from the host's endorsements.

Source: AMD publication 56421, SNP Extended Guest Request; `parma_snp.certtable` reads it.
"""

from __future__ import annotations

import binascii
import struct
from typing import Final

_END: Final = "-----END CERTIFICATE-----"
_ENTRY: Final = struct.Struct("<16sII")
_GUIDS: Final = (
    "63da758de6644564adc5f4b93be8accd",  # VCEK
    "4ab7b379bbac4fe4a02f05aef327c782",  # ASK
    "c0b406a4a803495297433fb6014cd0ae",  # ARK
)


def certificates(pem: str) -> list[bytes]:
    """The DER of each certificate in a PEM text. Raises ValueError where that is not base64."""
    bodies = [part.rpartition("-----")[2] for part in pem.split(_END)]
    return [binascii.a2b_base64("".join(body.split()), strict_mode=True) for body in bodies if body.strip()]


def table(host_amd_cert: dict[str, str]) -> bytes:
    """VCEK, ASK and ARK as a table; empty when the host gave none."""
    if not host_amd_cert:
        return b""
    found = certificates(host_amd_cert["vcekCert"] + host_amd_cert["certificateChain"])[: len(_GUIDS)]
    offset = _ENTRY.size * (len(found) + 1)
    head = b""
    for guid, data in zip(_GUIDS, found, strict=False):
        head += _ENTRY.pack(bytes.fromhex(guid), offset, len(data))
        offset += len(data)
    return head + bytes(_ENTRY.size) + b"".join(found)
