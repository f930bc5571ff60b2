# SPDX-License-Identifier: Apache-2.0
"""did:x509, version 0: an issuer named by the fingerprint of an authority and by what its signer's certificate says.

Source: the method's specification (microsoft/did-x509), of which this is the resolution against a verified chain.
The text of a DID proves nothing by itself; only :meth:`DidX509.check` against the chain that signed does.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from parma_cose.certificates import extension
from parma_cose.chain import Chain
from parma_cose.errors import CoseError

FINGERPRINTS: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
MAX_DID: Final = 4096
_PREFIX: Final = "did:x509:0:"
_FULCIO_ISSUER: Final = "1.3.6.1.4.1.57264.1.1"
_LABELS: Final = {
    NameOID.COMMON_NAME: "CN",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STREET_ADDRESS: "STREET",
}
_OID: Final = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_ENCODED: Final = re.compile(r"(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Predicate:
    """What the signer's certificate must say. ``values`` are percent-decoded."""

    name: str
    """``subject``, ``san``, ``eku`` or ``fulcio-issuer``."""
    values: tuple[str, ...]
    """subject: key, value, key, value, ...; san: type and value; the others: one value."""


@dataclass(frozen=True, slots=True)
class DidX509:
    """A parsed DID, which nothing has been compared with yet."""

    text: str
    fingerprint_algorithm: str
    fingerprint: str
    """base64url without padding."""
    predicates: tuple[Predicate, ...]

    @classmethod
    def parse(cls, text: str) -> DidX509:
        """Raises CoseError ``issuer`` for what is not a did:x509 of version 0."""
        if len(text) > MAX_DID or not text.startswith(_PREFIX):
            raise _bad("the issuer is not a did:x509 of version 0", expected=f"{_PREFIX}...")
        if set(text) & set("/?#"):
            raise _bad("a did:x509 has no path, query or fragment")
        authority, *predicates = text.removeprefix(_PREFIX).split("::")
        algorithm, _, fingerprint = authority.partition(":")
        if algorithm not in FINGERPRINTS:
            raise _bad("the fingerprint algorithm is not supported", expected=", ".join(FINGERPRINTS))
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise _bad("the fingerprint is malformed", expected="base64url without padding")
        if not predicates:
            raise _bad("the did:x509 says nothing about the signer", expected="at least one predicate")
        return cls(text, algorithm, fingerprint, tuple(map(_predicate, predicates)))

    def check(self, chain: Chain) -> None:
        """The chain, verified before, is one of this issuer. Raises CoseError ``issuer`` (``format`` for a chain whose
        names cannot be compared: an attribute twice, or an alternative name of another kind).
        """
        facts = [_Facts.of(certificate) for certificate in chain.certificates]
        prints = [fingerprint(certificate, self.fingerprint_algorithm) for certificate in chain.authorities]
        if self.fingerprint not in prints:
            raise CoseError(
                "issuer",
                "no authority of the chain has the fingerprint that the issuer names",
                expected=self.fingerprint,
                found=", ".join(prints)[:400],
            )
        for predicate in self.predicates:
            facts[0].check(predicate)


def fingerprint(certificate: x509.Certificate, algorithm: str = "sha256") -> str:
    """The digest of a certificate as did:x509 writes it."""
    return _base64url(certificate.fingerprint(FINGERPRINTS[algorithm]))


def percent_encode(text: str) -> str:
    """A value for a predicate: everything but letters, digits, ``-``, ``.`` and ``_`` encoded."""
    return quote(text, safe="").replace("~", "%7E")


def derive(chain: Chain, predicate: str, *, authority: int = -1) -> str:
    """The DID of a chain: by the fingerprint of one of its authorities (index, the root by default).

    ``predicate`` is ``eku:OID``, ``subject:CN`` or another subject label (its value is taken from the certificate), or
    a complete predicate as it stands in a DID. Raises CoseError ``usage`` for one that does not hold for the chain.
    """
    name, _, value = predicate.partition(":")
    if name == "subject" and ":" not in value:
        subject = _Facts.of(chain.leaf).subject
        if value not in subject:
            raise CoseError("usage", f"the signer's certificate has no {value[:40]!r} in its subject")
        predicate = f"subject:{value}:{percent_encode(subject[value])}"
    text = f"{_PREFIX}sha256:{fingerprint(chain.authorities[authority])}::{predicate}"
    try:
        DidX509.parse(text).check(chain)
    except CoseError as error:
        raise CoseError("usage", error.message, expected=error.expected, found=error.found) from None
    return text


def resolve(did: str, chain: Chain) -> dict[str, object]:
    """The DID document of the specification. A fragment (``#0``) is not part of the DID and is left out.

    Raises CoseError ``issuer`` (also for a key that may neither sign nor agree on keys), ``format`` or ``alg``.
    """
    text = did.partition("#")[0]
    DidX509.parse(text).check(chain)
    key = f"{text}#0"
    document: dict[str, object] = {
        "@context": "https://www.w3.org/ns/cid/v1",
        "id": text,
        "verificationMethod": [
            {"id": key, "type": "JsonWebKey", "controller": text, "publicKeyJwk": _jwk(chain.leaf.public_key())}
        ],
    }
    usage = extension(chain.leaf, x509.KeyUsage)
    if usage is None or usage.digital_signature:
        document |= {"authentication": [key], "assertionMethod": [key]}
    if usage is None or usage.key_agreement:
        document["keyAgreement"] = [key]
    if "authentication" not in document and "keyAgreement" not in document:
        raise CoseError("issuer", "the signer's key may neither sign nor agree on keys")
    return document


def _bad(message: str, *, expected: str = "") -> CoseError:
    return CoseError("issuer", message, expected=expected)


def _predicate(text: str) -> Predicate:
    name, _, rest = text.partition(":")
    parts = rest.split(":")
    values = tuple(map(_decoded, parts))
    match name, parts:
        case "subject", [*_] if len(parts) % 2 == 0:
            keys = parts[::2]
            known = all(key in _LABELS.values() or _OID.fullmatch(key) for key in keys)
            if known and len(set(keys)) == len(keys):
                return Predicate(name, values)
        case "san", ["email" | "dns" | "uri", _]:
            return Predicate(name, values)
        case "eku", [oid] if _OID.fullmatch(oid):
            return Predicate(name, values)
        case "fulcio-issuer", [_]:
            return Predicate(name, values)
    raise _bad("a predicate of the did:x509 is unknown or malformed", expected="subject, san, eku or fulcio-issuer")


def _decoded(part: str) -> str:
    if not _ENCODED.fullmatch(part):
        raise _bad("a value in the did:x509 is not percent-encoded")
    try:
        return unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("a value in the did:x509 is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class _Facts:
    """What predicates can be about."""

    subject: dict[str, str]
    alternative_names: tuple[tuple[str, str], ...]
    key_purposes: tuple[str, ...] | None
    fulcio_issuer: str | None

    @classmethod
    def of(cls, certificate: x509.Certificate) -> _Facts:
        _attributes(certificate.issuer)
        purposes = extension(certificate, x509.ExtendedKeyUsage)
        return cls(
            _attributes(certificate.subject),
            tuple(_alternative_names(certificate)),
            None if purposes is None else tuple(oid.dotted_string for oid in purposes),
            _fulcio_issuer(certificate),
        )

    def check(self, predicate: Predicate) -> None:
        values = predicate.values
        if predicate.name == "subject":
            wanted = dict(zip(values[::2], values[1::2], strict=True))
            holds = all(self.subject.get(key) == value for key, value in wanted.items())
        elif predicate.name == "san":
            holds = (values[0], values[1]) in self.alternative_names
        elif predicate.name == "eku":
            holds = values[0] in (self.key_purposes or ())
        else:
            holds = self.fulcio_issuer == f"https://{values[0]}"
        if not holds:
            message = f"the signer's certificate does not have the {predicate.name} that the issuer names"
            raise CoseError("issuer", message, expected=" ".join(values)[:200])


def _attributes(name: x509.Name) -> dict[str, str]:
    found: dict[str, str] = {}
    for attribute in name:
        key = _LABELS.get(attribute.oid, attribute.oid.dotted_string)
        if key in found:
            raise CoseError("format", "a certificate's name has an attribute twice", found=key)
        found[key] = attribute.value if isinstance(attribute.value, str) else attribute.value.hex()
    return found


def _alternative_names(certificate: x509.Certificate) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in extension(certificate, x509.SubjectAlternativeName) or ():
        match name:
            case x509.RFC822Name():
                found.append(("email", name.value))
            case x509.DNSName():
                found.append(("dns", name.value))
            case x509.UniformResourceIdentifier():
                found.append(("uri", name.value))
            case x509.DirectoryName():
                _attributes(name.value)
            case _:
                raise CoseError("format", "a certificate has an alternative name of a kind that is not supported")
    return found


def _fulcio_issuer(certificate: x509.Certificate) -> str | None:
    for found in certificate.extensions:
        if found.oid.dotted_string == _FULCIO_ISSUER and isinstance(found.value, x509.UnrecognizedExtension):
            try:
                return found.value.value.decode("utf-8")
            except UnicodeDecodeError:
                raise CoseError("format", "a certificate's Fulcio issuer is not UTF-8") from None
    return None


def _jwk(key: object) -> dict[str, str]:
    """RFC 7518, section 6; RFC 8037."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        curves = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        if key.curve.name in curves:
            size, numbers = (key.curve.key_size + 7) // 8, key.public_numbers()
            x, y = (_base64url(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": curves[key.curve.name], "x": x, "y": y}
    if isinstance(key, rsa.RSAPublicKey):
        modulus, exponent = (_unsigned(n) for n in (key.public_numbers().n, key.public_numbers().e))
        return {"kty": "RSA", "n": modulus, "e": exponent}
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        curve = "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "Ed448"
        return {"kty": "OKP", "crv": curve, "x": _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    raise CoseError("alg", "the signer's key has no JSON Web Key form")


def _unsigned(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
