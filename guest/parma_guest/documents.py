# SPDX-License-Identifier: Apache-2.0
"""Signed documents from the host: fragments of the policy, and trust lists of transparency ledgers.

A document arrives in pieces, is verified as a whole, and only then is the policy asked about it. What it adds is kept
with the transaction's state: a document that is refused leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from parma_guest import decisions
from parma_guest.enforcer import Enforcer
from parma_wire.errors import FailedPrecondition, Malformed
from parma_wire.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENTS

if TYPE_CHECKING:
    from parma_policy.signed.ledgers import TrustedLedgers


class Documents:
    """The document being received, and the ledgers trusted so far."""

    def __init__(self, enforcer: Enforcer) -> None:
        self._enforcer: Final = enforcer
        self._received = bytearray()
        self._accepted = 0
        self._ledgers: TrustedLedgers | None = None

    def put(self, offset: int, data: bytes) -> None:
        """Appends a piece; offset 0 begins another document. Raises `Malformed` out of order or beyond the limit."""
        with self._enforcer.change("PutDocument"):
            if offset == 0:
                self._received.clear()
            if offset != len(self._received):
                raise Malformed("piece of the document is out of order", expected=f"offset {len(self._received)}")
            if len(self._received) + len(data) > MAX_DOCUMENT_BYTES:
                raise Malformed("the document is too large", expected=f"at most {MAX_DOCUMENT_BYTES} bytes")
            self._received += data

    def load_fragment(self, size: int) -> None:
        """Adds what the policy lets the fragment contribute.

        Raises `Malformed` or `Unverified` for the envelope, `Denied` with the policy's reason.
        """
        with self._enforcer.change("LoadFragment") as policy:
            signed = decisions.signed_documents()
            request = signed.read_fragment(self._take(size), self._ledgers or signed.NO_LEDGERS)
            policy.ask("load_fragment", decisions.load_fragment(request))
            self._accepted += 1

    def load_trust_list(self, size: int) -> None:
        """Trusts the keys of the ledgers that the policy lets the list name. Raises as `load_fragment`."""
        with self._enforcer.change("LoadTrustList") as policy:
            signed = decisions.signed_documents()
            offered = signed.read_trust_list(self._take(size))
            verdict = policy.ask("load_transparency_trust_list", decisions.load_trust_list(offered.request))
            self._ledgers = offered.accepted(self._ledgers or signed.NO_LEDGERS, verdict.ledgers)
            self._accepted += 1

    def _take(self, size: int) -> bytes:
        data, self._received = bytes(self._received), bytearray()
        if not data or size != len(data):
            raise Malformed("the document is incomplete", expected=f"the {size} bytes announced, at least one")
        if self._accepted >= MAX_DOCUMENTS:
            raise FailedPrecondition("too many signed documents", expected=f"at most {MAX_DOCUMENTS}")
        return data
