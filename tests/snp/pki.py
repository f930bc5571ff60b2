# SPDX-License-Identifier: Apache-2.0
"""A throw-away issuer of endorsements."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from parma_snp.endorsement import Signer, issuer_of, load_signer

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
SIGNED_AT = datetime(2025, 6, 1, tzinfo=UTC)


class Issuer(NamedTuple):
    """PEM of the signer's key and of its chain, the signer made of them, and its DID."""

    key: bytes
    chain: bytes
    signer: Signer
    did: str


def make_issuer(name: str = "Image signer") -> Issuer:
    """A root and a signer, P-384, valid in 2025."""
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root = _certificate(f"{name} root", root_key, f"{name} root", root_key, authority=True)
    leaf = _certificate(name, key, f"{name} root", root_key, authority=False)
    chain = leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signer = load_signer(pem, chain)
    return Issuer(pem, chain, signer, issuer_of(signer, "subject:CN"))


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    name, issuer_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer_name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(BEGIN).not_valid_after(END + timedelta(days=3650 if authority else 0))
    constraints = x509.BasicConstraints(ca=authority, path_length=None)
    return builder.add_extension(constraints, critical=True).sign(issuer_key, hashes.SHA384())
