# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an envelope to the request that the framework decides on, with every check that comes before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from parma_cose import envelope
from parma_cose.envelope import Signed
from parma_cose.errors import CoseError
from parma_cose.keys import TRUST_LIST_TYPE, KeySet
from parma_cose.keys import read_trust_list as read_ledgers
from parma_policy.requests import LoadFragment, LoadTransparencyTrustList
from parma_policy.signed.ledgers import NO_LEDGERS, TrustedLedgers
from parma_wire.errors import Malformed, ParmaError, Unverified
from parma_wire.limits import MAX_DOCUMENT_BYTES, MAX_POLICY_BYTES

_NONSENSE: Final = ("format", "tag")


@dataclass(frozen=True)
class OfferedTrustList:
    """A trust list whose envelope was verified, and the keys in it."""

    request: LoadTransparencyTrustList
    keys: Mapping[str, KeySet]

    def accepted(self, trusted: TrustedLedgers, allowed: tuple[str, ...]) -> TrustedLedgers:
        """``trusted`` with the keys of the ledgers that the policy allows. Raises Unverified."""
        with parma_errors("the transparency trust list"):
            return trusted.merged(self.request.subject, self.keys, allowed)


def read_fragment(data: bytes, ledgers: TrustedLedgers = NO_LEDGERS, *, at: datetime | None = None) -> LoadFragment:
    """A fragment from untrusted bytes, its text still unread.

    ``at``: see :func:`parma_cose.envelope.verify`. Raises Malformed for what is no envelope of a fragment, Unverified
    for a wrong signature, chain, issuer or receipt.
    """
    return fragment_request(verify_document(data, at=at), ledgers)


def verify_document(data: bytes, *, at: datetime | None = None) -> Signed:
    """The envelope of a fragment or a trust list, verified. Raises Malformed or Unverified."""
    with parma_errors("the signed document"):
        return envelope.verify(data, at=at, any_curve=True, limit=MAX_DOCUMENT_BYTES)


def fragment_request(signed: Signed, ledgers: TrustedLedgers = NO_LEDGERS) -> LoadFragment:
    """What is asked of the policy for a verified envelope. Raises Malformed or Unverified."""
    if signed.content_type == TRUST_LIST_TYPE:
        raise Malformed("a transparency trust list was given as a fragment")
    if signed.headers.payload_hash_algorithm is not None:
        raise Malformed("the envelope holds a hash of something, not a fragment")
    with parma_errors("the fragment"):
        receipts = ledgers.receipts(signed.envelope)
    return LoadFragment(signed.issuer, signed.feed, signed.svn, _text(signed.payload), receipts)


def read_trust_list(data: bytes, *, at: datetime | None = None) -> OfferedTrustList:
    """A trust list from untrusted bytes. Raises Malformed or Unverified.

    Receipts in its own envelope prove nothing here: the list is what they would have to be judged by. Its issuer,
    subject and version are what the policy accepts it by.
    """
    signed = verify_document(data, at=at)
    if signed.content_type != TRUST_LIST_TYPE:
        raise Malformed("not a transparency trust list", expected=f"content type {TRUST_LIST_TYPE}")
    if signed.svn is None:
        raise Malformed("the transparency trust list has no security version number", expected="the CWT claim svn")
    with parma_errors("the transparency trust list"):
        keys = read_ledgers(signed.payload)
    return OfferedTrustList(LoadTransparencyTrustList(signed.issuer, signed.feed, signed.svn, tuple(keys)), keys)


@contextmanager
def parma_errors(what: str) -> Iterator[None]:
    """Raises what goes wrong with a signed document as an error of the one hierarchy."""
    try:
        yield
    except CoseError as error:
        raise parma_error(error, what) from error


def parma_error(error: CoseError, what: str) -> ParmaError:
    """Malformed for nonsense, Unverified for what cannot be shown to be genuine."""
    kind = Malformed if error.code in _NONSENSE else Unverified
    message = f"{what}: {error.message}"
    if error.found:
        message += f" ({error.found})"
    return kind(message, expected=error.expected, hint=error.hint)


def _text(payload: bytes) -> str:
    if len(payload) > MAX_POLICY_BYTES:
        raise Malformed("the fragment is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the fragment is not UTF-8 text") from None
