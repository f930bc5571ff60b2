# SPDX-License-Identifier: Apache-2.0
"""What the guest puts into REPORT_DATA when somebody outside asks it for evidence.

The host carries the question, so it must not choose REPORT_DATA itself: it could put the hash of a key of its own
there and pass the report off as the workload's. The guest hashes the asker's nonce under a label of its own instead;
no other protocol's REPORT_DATA has that form.
"""

from __future__ import annotations

import hashlib
from typing import Final

NONCE_SIZE: Final = 64
"""Bytes."""

_LABEL: Final = b"parma.evidence.v1\0"


def report_data_for_nonce(nonce: bytes) -> bytes:
    """The 64 bytes of REPORT_DATA that answer this nonce: SHA-512 over the label and the nonce."""
    return hashlib.sha512(_LABEL + nonce).digest()
