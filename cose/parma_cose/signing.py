# SPDX-License-Identifier: Apache-2.0
"""Making signed documents: keys and chains as PEM, an envelope as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from parma_cose import algorithms, cbor, certificates, headers
from parma_cose.algorithms import Algorithm, PrivateKey
from parma_cose.cbor import Label, Tag, Value
from parma_cose.chain import Chain, verify_chain
from parma_cose.errors import CoseError
from parma_cose.sign1 import MAX_PROTECTED, TAG

_SHA256: Final = -16


@dataclass(frozen=True)
class Signer:
    """A private key and the chain of its certificate."""

    key: PrivateKey
    ders: tuple[bytes, ...]
    chain: Chain

    @classmethod
    def from_pem(cls, key: bytes, chain: bytes, password: bytes | None = None) -> Signer:
        """From PEM: a private key (PKCS #8 or traditional), and certificates with the signer's first.

        Raises CoseError ``format``, ``alg``, ``chain`` or ``usage``.
        """
        private = _load_key(key, password)
        ders = certificates.load_pem(chain)
        verified = verify_chain(ders)
        if algorithms.accept_key(private.public_key()) != verified.leaf.public_key():
            raise CoseError("usage", "the key does not belong to the first certificate of the chain")
        return cls(private, ders, verified)


@dataclass(frozen=True)
class Document:
    """What to sign. ``issuer`` is a did:x509 (:func:`parma_cose.did.derive` makes one)."""

    payload: bytes
    issuer: str
    feed: str
    content_type: str
    svn: int | None = None
    signing_time: datetime | None = None
    """Aware. Receivers judge the certificates by it."""


def sign(
    document: Document, signer: Signer, algorithm: Algorithm | None = None, extra: dict[Label, Value] | None = None
) -> bytes:
    """An envelope with CWT claims, x5chain and x5t. ``extra`` are more protected headers.

    The algorithm is the usual one for the key unless given. Raises CoseError ``alg`` or ``format``.
    """
    public = algorithms.accept_key(signer.key.public_key())
    chosen = algorithm or algorithms.algorithm_for(public)
    algorithms.check_fit(chosen.number, public, any_curve=True)
    protected = _protected(document, signer.ders, chosen) | (extra or {})
    return sign_map(protected, document.payload, signer.key, chosen)


def sign_map(protected: dict[Label, Value], payload: bytes, key: PrivateKey, algorithm: Algorithm) -> bytes:
    """An envelope with exactly these protected headers and no unprotected ones."""
    encoded = cbor.encode(protected)
    if len(encoded) > MAX_PROTECTED:
        raise CoseError("format", "the protected headers are too large", expected=f"at most {MAX_PROTECTED} bytes")
    message = cbor.encode(["Signature1", encoded, b"", payload])
    return cbor.encode(Tag(TAG, [encoded, {}, payload, algorithms.sign(algorithm, key, message)]))


def _protected(document: Document, ders: Sequence[bytes], algorithm: Algorithm) -> dict[Label, Value]:
    claims: dict[Label, Value] = {headers.CLAIM_ISSUER: document.issuer, headers.CLAIM_SUBJECT: document.feed}
    if document.signing_time is not None:
        claims[headers.CLAIM_ISSUED_AT] = int(document.signing_time.timestamp())
    if document.svn is not None:
        claims[headers.CLAIM_SVN] = document.svn
    return {
        headers.ALG: algorithm.number,
        headers.CONTENT_TYPE: document.content_type,
        headers.CWT_CLAIMS: claims,
        headers.X5CHAIN: list(ders),
        headers.X5T: [_SHA256, algorithms.digest(_SHA256, ders[0])],
    }


def _load_key(pem: bytes, password: bytes | None) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CoseError("format", f"not a private key in PEM: {error}") from None
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        algorithms.accept_key(key.public_key())
        return key
    raise CoseError("alg", "the private key is of a kind that is not accepted", expected="EC or RSA")
