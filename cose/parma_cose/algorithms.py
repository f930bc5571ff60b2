# SPDX-License-Identifier: Apache-2.0
"""Signature and hash algorithms by their COSE numbers (RFC 9053, RFC 8230), and what makes a key acceptable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from parma_cose.errors import CoseError

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")

HASHES: Final[dict[int, hashes.HashAlgorithm]] = {-16: hashes.SHA256(), -43: hashes.SHA384(), -44: hashes.SHA512()}
"""By COSE number (RFC 9054)."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signature algorithm. ``curve`` is the one that everybody uses with it; None for RSA."""

    name: str
    number: int
    hash: hashes.HashAlgorithm
    curve: str | None = None


_ALL: Final = (
    Algorithm("ES256", -7, hashes.SHA256(), "secp256r1"),
    Algorithm("ES384", -35, hashes.SHA384(), "secp384r1"),
    Algorithm("ES512", -36, hashes.SHA512(), "secp521r1"),
    Algorithm("PS256", -37, hashes.SHA256()),
    Algorithm("PS384", -38, hashes.SHA384()),
    Algorithm("PS512", -39, hashes.SHA512()),
)
BY_NUMBER: Final = {algorithm.number: algorithm for algorithm in _ALL}
BY_NAME: Final = {algorithm.name: algorithm for algorithm in _ALL}


def accept_key(key: object) -> PublicKey:
    """The key, if it is of a kind and size that signs documents. Raises CoseError ``alg``."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return key
    expected = f"P-256, P-384, P-521, or RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
    raise CoseError("alg", "the signer's key is of a kind that is not accepted", expected=expected)


def algorithm_for(key: PublicKey) -> Algorithm:
    """The usual one for a key: as strong as the curve; PS384 for RSA."""
    if isinstance(key, rsa.RSAPublicKey):
        return BY_NAME["PS384"]
    return next(algorithm for algorithm in _ALL if algorithm.curve == key.curve.name)


def check_fit(number: int, key: PublicKey, *, any_curve: bool = False) -> Algorithm:
    """The algorithm, if it is one for this key. Raises CoseError ``alg``.

    ``any_curve``: RFC 9053 does not tie ES256, ES384 and ES512 to curves, and documents exist that sign with ES384 and
    a P-256 key. Without it each algorithm has its usual curve.
    """
    algorithm = BY_NUMBER.get(number)
    if algorithm is None:
        raise CoseError(
            "alg", "the signature algorithm is not accepted", expected=", ".join(BY_NAME), found=str(number)
        )
    if isinstance(key, rsa.RSAPublicKey) != (algorithm.curve is None):
        raise CoseError("alg", f"{algorithm.name} does not fit the signer's key")
    if isinstance(key, ec.EllipticCurvePublicKey) and not any_curve and key.curve.name != algorithm.curve:
        raise CoseError("alg", f"{algorithm.name} does not fit the signer's curve", found=key.curve.name)
    return algorithm


def verify(algorithm: Algorithm, key: PublicKey, signature: bytes, message: bytes) -> None:
    """Raises CoseError ``signature``. ECDSA signatures are r and s, big-endian, each of the curve's size."""
    wrong = CoseError("signature", "the signature is wrong")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _pss(algorithm.hash), algorithm.hash)
            return
        size = _scalar_size(key)
        if len(signature) != 2 * size:
            raise wrong
        numbers = (int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))
        key.verify(encode_dss_signature(*numbers), message, ec.ECDSA(algorithm.hash))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise wrong from None


def sign(algorithm: Algorithm, key: PrivateKey, message: bytes) -> bytes:
    """A signature in COSE's form."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _pss(algorithm.hash), algorithm.hash)
    size = _scalar_size(key.public_key())
    numbers = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm.hash)))
    return b"".join(number.to_bytes(size, "big") for number in numbers)


def digest(number: int, data: bytes) -> bytes | None:
    """A hash by COSE number; None for one that is not known."""
    if number not in HASHES:
        return None
    context = hashes.Hash(HASHES[number])
    context.update(data)
    return context.finalize()


def _scalar_size(key: ec.EllipticCurvePublicKey) -> int:
    return (key.curve.key_size + 7) // 8


def _pss(algorithm: hashes.HashAlgorithm) -> padding.PSS:
    """The salt is as long as the hash (RFC 8230, section 2)."""
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
