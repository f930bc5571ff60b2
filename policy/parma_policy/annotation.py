# SPDX-License-Identifier: Apache-2.0
"""The annotation ``io.parma.policy``: base64 of the policy's text, which may be gzipped first.

What counts for HOST_DATA are the bytes of the text itself, never how they travel.
"""

from __future__ import annotations

import binascii
import zlib
from typing import Final

from parma_wire.errors import Denied, Malformed
from parma_wire.limits import MAX_POLICY_BYTES

ANNOTATION: Final = "io.parma.policy"
VOLUME_LIMITS: Final = "io.parma.volume-limits"
"""``NAME=SIZE,...``: how much a pod's emptyDirs may hold, which kubelet tells no runtime. No policy says it either."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 16 + zlib.MAX_WBITS
# Base64 of a text that does not compress, with room for gzip's frame.
_MAX_TEXT: Final = (MAX_POLICY_BYTES // 3 + 1) * 4 + 4096


def load_annotation(text: str) -> bytes:
    """The policy's bytes.

    Raises Malformed for what is not base64 or damaged, Denied for what is too large to be loaded anywhere.
    """
    if len(text) > _MAX_TEXT:
        raise _too_large()
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Malformed(f"{ANNOTATION} is not base64", hint="make it with 'parma policy annotation FILE'") from None
    if data.startswith(_GZIP_MAGIC):
        data = _decompress(data)
    if len(data) > MAX_POLICY_BYTES:
        raise _too_large()
    return data


def to_annotation(policy: bytes, *, compress: bool = True) -> str:
    """The annotation's text, the same for the same bytes; gzipped where that makes it shorter."""
    packer = zlib.compressobj(9, wbits=_GZIP)
    packed = packer.compress(policy) + packer.flush()
    shorter = packed if compress and len(packed) < len(policy) else policy
    return binascii.b2a_base64(shorter, newline=False).decode("ascii")


def _decompress(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        result = unpacker.decompress(data, MAX_POLICY_BYTES + 1)
    except zlib.error:
        raise Malformed(f"the gzip data in {ANNOTATION} is damaged") from None
    if len(result) > MAX_POLICY_BYTES:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed(f"the gzip data in {ANNOTATION} is cut short, or followed by something else")
    return result


def _too_large() -> Denied:
    return Denied("the policy is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
