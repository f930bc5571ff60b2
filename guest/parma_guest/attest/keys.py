# SPDX-License-Identifier: Apache-2.0
"""Keys for containers, derived from one that stays with the enforcer.

The firmware derives a key from the processor's secret, the guest policy and the launch measurement. HOST_DATA cannot
be mixed in there, so two VMs with different execution policies on one image and processor get the same key: it is
never given to a container. HKDF-SHA-256 (RFC 5869) makes the containers' keys of it, bound to the execution policy
and to the container's definition in it::

    key = HKDF(salt = none, secret = derived key, info = label || HOST_DATA || identity || context, 32 bytes)

HOST_DATA and identity have 32 bytes each, so no two sets of values make the same info.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

KEY_SIZE: Final = 32
DIGEST_SIZE: Final = 32
"""Bytes of HOST_DATA and of a container's identity."""

_LABEL: Final = b"parma.container-key.v1\0"


def container_key(derived_key: bytes, host_data: bytes, identity: bytes, context: bytes) -> bytes:
    """The container's key (32 bytes) for ``context``, any bytes by which it tells its keys apart."""
    if len(derived_key) != KEY_SIZE or len(host_data) != DIGEST_SIZE or len(identity) != DIGEST_SIZE:
        raise ValueError("key material of a bad size")
    return hkdf(derived_key, _LABEL + host_data + identity + context)


def hkdf(secret: bytes, info: bytes, salt: bytes = b"") -> bytes:
    """The first 32 bytes of HKDF-SHA-256's output: extract, and one round of expand (RFC 5869, section 2)."""
    key = hmac.digest(salt or bytes(DIGEST_SIZE), secret, hashlib.sha256)
    return hmac.digest(key, info + b"\x01", hashlib.sha256)
