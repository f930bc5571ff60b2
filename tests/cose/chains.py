# SPDX-License-Identifier: Apache-2.0
"""Throw-away certificate authorities and ledgers for tests. Nothing outside tests trusts them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from parma_cose import algorithms, cbor, headers
from parma_cose.algorithms import BY_NAME, PrivateKey
from parma_cose.cbor import Label, Tag, Value
from parma_cose.sign1 import TAG, parse
from parma_cose.signing import Signer

EKU = "1.3.6.1.4.1.55555.76.2"
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2035, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Certified:
    """A key and its certificate."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def name(*attributes: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def common_name(text: str) -> x509.Name:
    return name((NameOID.COMMON_NAME, text))


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{**dict.fromkeys(names, False), **bits})


def certify(
    subject: str | x509.Name,
    issuer: Certified | None = None,
    *,
    ca: bool = False,
    key: PrivateKey | None = None,
    begin: datetime = BEGIN,
    end: datetime = END,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    path_length: int | None = None,
    constraints: bool = True,
    key_usage: x509.KeyUsage | None = None,
    hash_algorithm: Any = None,
) -> Certified:
    """A certificate; without an issuer it signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = common_name(subject) if isinstance(subject, str) else subject
    signing_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    usages = key_usage or (usage(key_cert_sign=True) if ca else usage(digital_signature=True))
    builder = builder.add_extension(usages, critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Certified(key, builder.sign(signing_key, hash_algorithm or hashes.SHA256()))


def key_purpose(oid: str = EKU) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage([ObjectIdentifier(oid)]), False


@dataclass(frozen=True)
class Authority:
    """Root, intermediate and a signer's certificate."""

    root: Certified
    intermediate: Certified
    leaf: Certified

    @property
    def ders(self) -> tuple[bytes, ...]:
        return tuple(part.der for part in (self.leaf, self.intermediate, self.root))

    @property
    def chain_pem(self) -> bytes:
        return b"".join(part.pem for part in (self.leaf, self.intermediate, self.root))

    @property
    def signer(self) -> Signer:
        return Signer.from_pem(self.leaf.key_pem, self.chain_pem)


def authority(leaf_key: PrivateKey | None = None, subject: str = "Signer", **leaf: Any) -> Authority:
    """A chain of three whose leaf has :data:`EKU`."""
    root = certify("Root", ca=True)
    intermediate = certify("Intermediate", root, ca=True, path_length=0)
    extensions = leaf.pop("extensions", (key_purpose(),))
    return Authority(root, intermediate, certify(subject, intermediate, key=leaf_key, extensions=extensions, **leaf))


@cache
def shared_authority() -> Authority:
    """One that tests which do not change it can share."""
    return authority()


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def short_validity() -> tuple[datetime, datetime]:
    return NOW - timedelta(days=10), NOW + timedelta(days=10)


@dataclass(frozen=True)
class Ledger:
    """A transparency ledger with one key."""

    name: str
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "ledger.example") -> Ledger:
        return cls(name, ec.generate_private_key(ec.SECP384R1()))

    @property
    def key_id(self) -> bytes:
        public = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(public).hexdigest().encode()

    def cose_key(self) -> dict[Label, Value]:
        numbers = self.key.public_key().public_numbers()
        x, y = (number.to_bytes(48, "big") for number in (numbers.x, numbers.y))
        return {1: 2, 2: self.key_id, 3: -35, -1: 2, -2: x, -3: y}

    def receipt(self, envelope: bytes, *, path: Sequence[tuple[bool, bytes]] = ((True, b"\1" * 32),)) -> bytes:
        """A receipt for an envelope, as the leaf with the given way to the root."""
        registered = parse(envelope).without_unprotected()
        transaction, evidence = b"\7" * 32, "ce:2.1:00"
        data_hash = hashlib.sha256(registered).digest()
        node = hashlib.sha256(transaction + hashlib.sha256(evidence.encode()).digest() + data_hash).digest()
        for left, other in path:
            node = hashlib.sha256(other + node if left else node + other).digest()
        proof = cbor.encode({1: [transaction, evidence, data_hash], 2: [list(step) for step in path]})
        protected = cbor.encode(
            {
                headers.ALG: -35,
                headers.KID: self.key_id,
                headers.VDS: 2,
                headers.CWT_CLAIMS: {1: self.name, 2: "scitt.ccf.signature.v1", 6: 1_770_000_000},
            }
        )
        message = cbor.encode(["Signature1", protected, b"", node])
        signature = algorithms.sign(BY_NAME["ES384"], self.key, message)
        return cbor.encode(Tag(TAG, [protected, {headers.VDP: {-1: [proof]}}, None, signature]))


def with_receipts(envelope: bytes, *receipts: bytes) -> bytes:
    """The envelope with receipts attached, as a ledger's client would."""
    found = parse(envelope)
    return cbor.encode(Tag(TAG, [found.protected, {headers.RECEIPTS: list(receipts)}, found.payload, found.signature]))


def trust_list(*ledgers: Ledger) -> bytes:
    """The payload of a trust list."""
    return cbor.encode({ledger.name: {1: [ledger.cose_key()]} for ledger in ledgers})
