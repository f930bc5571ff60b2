# SPDX-License-Identifier: Apache-2.0
"""From a signer's certificate to the last one of its chain (RFC 5280, section 6), and nothing beyond.

That a chain is consistent says nothing about whom to trust: trust comes from comparing a fingerprint of one of its
authorities with an expected one (:mod:`parma_cose.did`). The last certificate is the trust anchor of the path; it is
held to the same rules as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509.oid import ExtensionOID

from parma_cose import algorithms, certificates
from parma_cose.certificates import extension, is_self_issued
from parma_cose.constraints import check_names
from parma_cose.errors import CoseError
from parma_cose.policies import check_policies

_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_SIGNING_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True)
class Chain:
    """Certificates that were found consistent: each is issued by the next."""

    certificates: tuple[x509.Certificate, ...]
    """The signer's first."""

    @property
    def leaf(self) -> x509.Certificate:
        """The signer's."""
        return self.certificates[0]

    @property
    def authorities(self) -> tuple[x509.Certificate, ...]:
        """All but the signer's."""
        return self.certificates[1:]


def verify_chain(ders: Sequence[bytes], at: datetime | None = None) -> Chain:
    """Verifies untrusted certificates, DER, the signer's first, at least two.

    ``at`` (aware) is the moment at which all must be valid; None leaves that to the caller, who then has to call
    :func:`check_validity`. Raises CoseError ``format``, ``alg``, ``chain`` or ``validity``.
    """
    if len(ders) < 2:
        raise CoseError("chain", "the chain has no authority", expected="at least two certificates")
    chain = Chain(tuple(certificates.load(der) for der in ders))
    parsed = chain.certificates
    if len({bytes(certificate.fingerprint(hashes.SHA256())) for certificate in parsed}) != len(parsed):
        raise CoseError("chain", "a certificate is in the chain twice")
    for child, issuer in pairwise(parsed):
        _check_issued(child, issuer)
    if is_self_issued(parsed[-1]):
        _check_issued(parsed[-1], parsed[-1])
    for certificate in parsed:
        _check_extensions(certificate)
    _check_authorities(parsed)
    check_names(parsed)
    check_policies(parsed)
    if at is not None:
        check_validity(chain, at)
    return chain


def check_validity(chain: Chain, at: datetime) -> None:
    """Every certificate is valid at a moment (aware). Raises CoseError ``validity``."""
    for certificate in chain.certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= at <= end:
            raise CoseError(
                "validity",
                f"the certificate of {name(certificate)} was not valid at the time of judgement",
                expected=f"{begin.isoformat()} to {end.isoformat()}",
                found=at.isoformat(),
            )


def name(certificate: x509.Certificate) -> str:
    """The subject for messages: one line, at most 120 characters."""
    text = certificate.subject.rfc4514_string() or "(no name)"
    return "".join(character if character.isprintable() else "?" for character in text)[:120]


def _check_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    edwards = isinstance(issuer.public_key(), ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    if not edwards and not isinstance(_hash_of(child), _SIGNING_HASHES):
        raise CoseError("chain", f"the certificate of {name(child)} is signed with a weak or unknown algorithm")
    if not edwards:
        algorithms.accept_key(issuer.public_key())
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, *certificates.PARSE_ERRORS):
        raise CoseError(
            "chain",
            f"the certificate of {name(child)} is not issued by the next one in the chain",
            hint="the order is: the signer's, its issuer's, and so on up to the root",
        ) from None


def _hash_of(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except certificates.PARSE_ERRORS:
        return None


def _check_extensions(certificate: x509.Certificate) -> None:
    for found in certificate.extensions:
        if found.critical and found.oid not in _UNDERSTOOD:
            oid = found.oid.dotted_string
            raise CoseError("chain", f"the certificate of {name(certificate)} has an unknown critical extension {oid}")


def _check_authorities(chain: Sequence[x509.Certificate]) -> None:
    below = 0  # certificates of authorities below, without self-issued ones (RFC 5280, section 4.2.1.9)
    for certificate in chain[1:]:
        constraints = extension(certificate, x509.BasicConstraints)
        usage = extension(certificate, x509.KeyUsage)
        if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
            raise CoseError(
                "chain",
                f"the certificate of {name(certificate)} may not issue certificates",
                expected="CA:TRUE, and keyCertSign where key usage is given",
            )
        if constraints.path_length is not None and below > constraints.path_length:
            raise CoseError("chain", f"the path below {name(certificate)} is longer than it allows")
        below += not is_self_issued(certificate)
