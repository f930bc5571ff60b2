# SPDX-License-Identifier: Apache-2.0
"""A signed document, verified: the one way from untrusted bytes to something whose issuer is known.

The order of checks: envelope and headers, thumbprint, chain, signature, validity, issuer. What the result says comes
from protected headers only.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from parma_cose import algorithms
from parma_cose.certificates import extension
from parma_cose.chain import Chain, check_validity, name, verify_chain
from parma_cose.did import DidX509
from parma_cose.errors import CoseError
from parma_cose.headers import Headers
from parma_cose.sign1 import MAX_ENVELOPE, Sign1, parse


@dataclass(frozen=True)
class Signed:
    """A document whose signature, chain and issuer fit together. Whether the issuer is wanted is the reader's decision.

    ``issuer`` is a did:x509 that holds for ``chain``.
    """

    issuer: str
    feed: str
    svn: int | None
    content_type: str | int | None
    payload: bytes
    chain: Chain
    judged_at: datetime
    """The moment at which all certificates were valid; see :func:`verify`."""
    envelope: Sign1

    @property
    def headers(self) -> Headers:
        """The protected headers."""
        return self.envelope.headers


def verify(data: bytes, *, at: datetime | None = None, any_curve: bool = False, limit: int = MAX_ENVELOPE) -> Signed:
    """Verifies an envelope with a chain, an issuer and a feed in its protected headers.

    Validity is judged ``at`` a moment (aware). Without one it is judged at the time of signing that the envelope gives,
    and where that is missing at the end of the signer's certificate: somebody without a clock that can be trusted
    cannot tell whether a certificate has expired, only whether it was ever valid. ``any_curve``: see
    :func:`algorithms.check_fit`. Raises CoseError of any code but ``receipt`` and ``usage``.
    """
    return verify_parsed(parse(data, limit=limit), at=at, any_curve=any_curve)


def verify_parsed(envelope: Sign1, *, at: datetime | None = None, any_curve: bool = False) -> Signed:
    """:func:`verify` for an envelope that is parsed already."""
    headers = envelope.headers
    if envelope.payload is None:
        raise CoseError("format", "the envelope has no payload")
    if not headers.chain:
        raise CoseError("format", "the envelope has no x5chain in its protected headers")
    _check_thumbprint(headers)
    chain = verify_chain(headers.chain)
    _check_may_sign(chain)
    key = algorithms.accept_key(chain.leaf.public_key())
    algorithm = algorithms.check_fit(headers.algorithm, key, any_curve=any_curve)
    algorithms.verify(algorithm, key, envelope.signature, envelope.to_be_signed())
    judged_at = at or headers.signing_time or chain.leaf.not_valid_after_utc
    check_validity(chain, judged_at)
    if headers.issuer is None or headers.feed is None:
        raise CoseError("format", "the envelope names no issuer or no feed", expected="both, protected")
    DidX509.parse(headers.issuer).check(chain)
    return Signed(
        headers.issuer,
        headers.feed,
        headers.svn,
        headers.content_type,
        envelope.payload,
        chain,
        judged_at,
        envelope,
    )


def _check_may_sign(chain: Chain) -> None:
    usage = extension(chain.leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise CoseError("chain", f"the key of {name(chain.leaf)} may not sign", expected="key usage digitalSignature")


def _check_thumbprint(headers: Headers) -> None:
    if headers.thumbprint is None:
        return
    digest = algorithms.digest(headers.thumbprint.algorithm, headers.chain[0])
    if digest is None:
        raise CoseError("x5t", "the thumbprint's algorithm is not accepted", expected="SHA-256, SHA-384 or SHA-512")
    if not hmac.compare_digest(digest, headers.thumbprint.digest):
        raise CoseError("x5t", "the thumbprint is not that of the signer's certificate")
