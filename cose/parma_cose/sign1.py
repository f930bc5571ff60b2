# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1 (RFC 9052, section 4.2): one payload, one signature. Parsing only; nothing here is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from parma_cose import cbor
from parma_cose.cbor import Label, Tag, Value
from parma_cose.errors import CoseError
from parma_cose.headers import RECEIPTS, Headers, read_headers

TAG: Final = 18
MAX_ENVELOPE: Final = 2 * 1024 * 1024
"""Bytes of an envelope with everything in it."""
MAX_PROTECTED: Final = 1024 * 1024
MAX_RECEIPTS: Final = 32


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed envelope. Nothing of it is verified; ``unprotected`` is not even signed."""

    protected: bytes
    """The protected headers as they were encoded: what the signature covers."""
    headers: Headers
    """The same, typed."""
    payload: bytes | None
    """None: detached, so that it must come from elsewhere."""
    signature: bytes
    unprotected: Mapping[Label, Value] = field(default_factory=dict)

    @property
    def unverified_receipts(self) -> tuple[bytes, ...]:
        """Transparency receipts, each an envelope of its own (RFC 9942). Raises CoseError ``receipt``."""
        value = self.unprotected.get(RECEIPTS, [])
        if not isinstance(value, list) or len(value) > MAX_RECEIPTS:
            raise CoseError("receipt", "the list of receipts is malformed", expected=f"at most {MAX_RECEIPTS}")
        receipts = tuple(item for item in value if isinstance(item, bytes))
        if len(receipts) != len(value):
            raise CoseError("receipt", "a receipt is no byte string")
        return receipts

    def to_be_signed(self, detached: bytes | None = None) -> bytes:
        """The Sig_structure. ``detached`` is the payload of an envelope that has none in it.

        Raises CoseError ``format`` unless there is exactly one payload.
        """
        if (self.payload is None) == (detached is None):
            problem = "the payload is missing" if self.payload is None else "the envelope has a payload of its own"
            raise CoseError("format", problem)
        payload = self.payload if detached is None else detached
        # An empty map is signed as the empty string (RFC 9052, section 4.4).
        protected = b"" if self.protected == b"\xa0" else self.protected
        return cbor.encode(["Signature1", protected, b"", payload])

    def without_unprotected(self) -> bytes:
        """The tagged envelope with an empty unprotected map: what a transparency ledger registers."""
        return cbor.encode(Tag(TAG, [self.protected, {}, self.payload, self.signature]))


def parse(data: bytes, *, limit: int = MAX_ENVELOPE) -> Sign1:
    """An envelope from untrusted bytes. Raises CoseError ``format``, ``tag``, ``alg`` or ``crit``."""
    value = cbor.decode(data, limit=limit)
    if not isinstance(value, Tag):
        raise CoseError("format", "not a tagged COSE_Sign1 envelope")
    if value.number != TAG:
        raise CoseError("tag", "not a COSE_Sign1 envelope", expected=f"tag {TAG}", found=str(value.number))
    match value.value:
        case [bytes(protected), dict(unprotected), bytes() | None as payload, bytes(signature)]:
            pass
        case _:
            raise CoseError("format", "not a COSE_Sign1 envelope", expected="four elements of the right types")
    members = cbor.decode(protected, limit=MAX_PROTECTED) if protected else {}
    if not isinstance(members, dict):
        raise CoseError("format", "the protected headers are no map")
    if members.keys() & unprotected.keys():
        raise CoseError("format", "a header is both protected and unprotected")
    return Sign1(protected, read_headers(members), payload, signature, unprotected)
