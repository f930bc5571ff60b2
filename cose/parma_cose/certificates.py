# SPDX-License-Identifier: Apache-2.0
"""One certificate from untrusted bytes, with everything decoded that somebody will look at later."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from parma_cose.errors import CoseError
from parma_cose.headers import MAX_CERTIFICATE_SIZE, MAX_CERTIFICATES

PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What ``cryptography`` raises for certificates that it cannot make sense of."""

_filter_lock: Final = threading.Lock()
_E = TypeVar("_E", bound=x509.ExtensionType)
_R = TypeVar("_R")


@contextmanager
def _no_warnings() -> Iterator[None]:
    """`cryptography` warns about odd serial numbers. Warning filters are global: one thread at a time."""
    with _filter_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parse(parse: Callable[[], _R], what: str) -> _R:
    try:
        with _no_warnings():
            return parse()
    except PARSE_ERRORS as error:
        raise CoseError("format", f"{what}: {error}") from None


def load(der: bytes) -> x509.Certificate:
    """A certificate. Raises CoseError ``format``."""
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise CoseError("format", "a certificate is too large", expected=f"at most {MAX_CERTIFICATE_SIZE} bytes")

    def parse() -> x509.Certificate:
        certificate = x509.load_der_x509_certificate(der)
        # These are decoded lazily; do it here so that nothing fails later with another kind of exception.
        _ = (certificate.version, certificate.extensions, certificate.subject, certificate.issuer)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.public_key())
        return certificate

    return _parse(parse, "not a certificate")


def load_pem(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM file in its order, as DER. Raises CoseError ``format``."""
    found = _parse(lambda: x509.load_pem_x509_certificates(pem), "not PEM certificates")
    if len(found) > MAX_CERTIFICATES:
        raise CoseError("format", "too many certificates", expected=f"at most {MAX_CERTIFICATES}")
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in found)


def to_pem(chain: Sequence[bytes]) -> str:
    """The inverse of :func:`load_pem`."""
    return "".join(load(der).public_bytes(Encoding.PEM).decode("ascii") for der in chain)


def extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    """The extension of this class, or None."""
    for found in certificate.extensions:
        if isinstance(found.value, kind):
            return found.value
    return None


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Subject and issuer are the same name (RFC 5280, section 6.1)."""
    return certificate.subject == certificate.issuer
