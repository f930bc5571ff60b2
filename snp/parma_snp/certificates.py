# SPDX-License-Identifier: Apache-2.0
"""From a pinned root to the key that signs reports: ARK -> ASK -> VCEK, or ARK -> ASVK -> VLEK.

Source: AMD publication 57230; RFC 5280 for the path; RFC 8017 for RSASSA-PSS. All certificates are untrusted input.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from parma_snp import oids
from parma_snp.anchors import BundledKind, TrustAnchors, bundled, fingerprint
from parma_snp.errors import SnpError
from parma_snp.extensions import AMD_OIDS, KeyExtensions, read_extensions
from parma_snp.report import PRODUCTS, Product

Role = Literal["VCEK", "VLEK"]
CrlMode = Literal["require", "use-if-present", "off"]

MAX_CERTIFICATE_SIZE: Final = 16 * 1024
MAX_CRL_SIZE: Final = 1024 * 1024
_CA_KEY_BITS: Final = 4096
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_UNDERSTOOD: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS.dotted_string, ExtensionOID.KEY_USAGE.dotted_string} | AMD_OIDS
)
# What `cryptography` raises on certificates it cannot make sense of; InvalidVersion is not a ValueError.
_PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
_warning_filter_lock: Final = threading.Lock()


@dataclass(frozen=True)
class CertificateChain:
    """Leaf (VCEK or VLEK), intermediate (ASK or ASVK), root (ARK) and perhaps the root's CRL; all DER, unverified."""

    leaf: bytes
    intermediate: bytes
    root: bytes
    crl: bytes | None = None

    @classmethod
    def from_pem(cls, pem: bytes) -> CertificateChain:
        """Leaf, intermediate and root in this order, or only a leaf of AMD's (see :func:`complete_chain`).

        Raises SnpError ``cert.parse`` or ``cert.chain_signature``.
        """
        try:
            with _no_serial_warning():
                parsed = x509.load_pem_x509_certificates(pem)
        except _PARSE_ERRORS as error:
            raise SnpError("cert.parse", f"not a PEM certificate chain: {error}") from None
        if len(parsed) not in (1, 3):
            expected = "3 certificates (leaf, ASK, ARK) or the leaf alone"
            raise SnpError("cert.parse", "incomplete chain", expected=expected, found=str(len(parsed)))
        parts = [certificate.public_bytes(Encoding.DER) for certificate in parsed]
        return cls(*parts) if len(parts) == 3 else complete_chain(parts[0])

    def to_pem(self) -> str:
        """The three certificates as PEM. Raises SnpError ``cert.parse`` when one is not a certificate."""
        parsed = (_load(part, "a certificate") for part in (self.leaf, self.intermediate, self.root))
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in parsed)


@dataclass(frozen=True)
class SigningKey:
    """A key that a trusted root vouches for, and what its certificate says about chip and firmware."""

    role: Role
    product: Product
    emulated: bool
    public_key: ec.EllipticCurvePublicKey
    extensions: KeyExtensions


@contextmanager
def _no_serial_warning() -> Iterator[None]:
    """AMD gives every VCEK the serial number 0, about which `cryptography` warns.

    Warning filters are global; the lock keeps our threads from restoring each other's.
    """
    with _warning_filter_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(der: bytes, what: str) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise SnpError("cert.parse", f"{what} is too large", expected=f"at most {MAX_CERTIFICATE_SIZE} bytes")
    try:
        with _no_serial_warning():
            certificate = x509.load_der_x509_certificate(der)
            # These are decoded lazily; do it here so that nothing fails later with another kind of exception.
            _ = (certificate.extensions, certificate.subject, certificate.issuer, certificate.version)
            _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.public_key())
    except _PARSE_ERRORS as error:
        raise SnpError("cert.parse", f"{what} is not a certificate: {error}") from None
    # The signature ends the DER as a BIT STRING without unused bits; parsers do not look at that byte.
    if not der.endswith(b"\0" + certificate.signature):
        raise SnpError("cert.parse", f"{what} is not DER: its signature has unused bits")
    return certificate


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 else ""


def load_root(pem_or_der: bytes) -> bytes:
    """One certificate from a file, PEM or DER, as DER. Raises SnpError ``cert.parse``."""
    if b"-----BEGIN" not in pem_or_der:
        return _load(pem_or_der, "the root").public_bytes(Encoding.DER)
    try:
        with _no_serial_warning():
            return x509.load_pem_x509_certificate(pem_or_der).public_bytes(Encoding.DER)
    except _PARSE_ERRORS as error:
        raise SnpError("cert.parse", f"not a PEM certificate: {error}") from None


def complete_chain(leaf: bytes, intermediate: bytes | None = None, root: bytes | None = None) -> CertificateChain:
    """Add AMD's bundled certificates where the host supplied none, by the name of the leaf's issuer."""
    if intermediate is None or root is None:
        issuer = _common_name(_load(leaf, "the VCEK or VLEK").issuer)
        kind: BundledKind = "asvk" if issuer.startswith("SEV-VLEK-") else "ask"
        product = next((p for p in PRODUCTS if issuer in (f"SEV-{p}", f"SEV-VLEK-{p}")), None)
        if product is None:
            raise SnpError("cert.chain_signature", "the chain is incomplete and the issuer is not AMD's", found=issuer)
        intermediate = intermediate if intermediate is not None else bundled(kind, product)
        root = root if root is not None else bundled("ark", product)
    return CertificateChain(leaf, intermediate, root)


def _check_issued(child: x509.Certificate, issuer: x509.Certificate, what: str) -> None:
    """``child`` is signed by ``issuer`` with RSASSA-PSS, SHA-384, salt of 48 bytes."""
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise SnpError("cert.role", f"the issuer of {what} has no RSA key")
    if child.issuer != issuer.subject:
        raise SnpError(
            "cert.chain_signature",
            f"{what} names another issuer",
            expected=issuer.subject.rfc4514_string(),
            found=child.issuer.rfc4514_string(),
        )
    if child.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        raise SnpError(
            "cert.chain_signature",
            f"{what} is signed with another algorithm",
            expected="RSASSA-PSS with SHA-384",
            found=child.signature_algorithm_oid.dotted_string,
        )
    try:
        # The first fixes the algorithm; the second also compares its two mentions, one of which is not signed.
        key.verify(child.signature, child.tbs_certificate_bytes, _PSS, hashes.SHA384())
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_PARSE_ERRORS):
        raise SnpError(
            "cert.chain_signature",
            f"the signature of {what} is not by the given issuer",
            hint="the certificates are mixed up, of different products, or changed",
        ) from None


def _check_extensions(certificate: x509.Certificate, what: str, *, emulated: bool) -> None:
    """No critical extension that is not understood; the emulation marker exactly when the anchors are emulated."""
    marked = False
    for extension in certificate.extensions:
        oid = extension.oid.dotted_string
        if oid == oids.EMULATION_MARKER and emulated:
            value = getattr(extension.value, "value", b"")
            marked = extension.critical and value == oids.EMULATION_MARKER_VALUE
        elif extension.critical and oid not in _UNDERSTOOD:
            hint = "this is evidence of an emulated processor" if oid == oids.EMULATION_MARKER else ""
            raise SnpError("cert.extensions", f"{what} has an unknown critical extension", found=oid, hint=hint)
    if emulated and not marked:
        raise SnpError("emulated.marker", f"{what} does not carry the critical emulation marker")


def _check_authority(certificate: x509.Certificate, what: str) -> None:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _CA_KEY_BITS:
        raise SnpError("cert.role", f"{what} has no RSA key of {_CA_KEY_BITS} bits")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise SnpError("cert.role", f"{what} may not issue certificates: {error}") from None
    if not constraints.ca or not usage.key_cert_sign:
        raise SnpError("cert.role", f"{what} may not issue certificates", expected="CA:TRUE and keyCertSign")


def _check_validity(certificate: x509.Certificate, what: str, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise SnpError(
            "cert.validity",
            f"{what} is not valid at the time of verification",
            expected=f"{begin.isoformat()} to {end.isoformat()}",
            found=now.isoformat(),
            hint="fetch a new certificate" if now > end else "check the clock",
        )


def _leaf_key(leaf: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SnpError("cert.role", "the VCEK or VLEK has no P-384 key")
    return key


def _role(
    leaf: x509.Certificate, intermediate: x509.Certificate, root: x509.Certificate, prefix: str
) -> tuple[Role, str]:
    """Leaf's role and the product, by the names; only meaningful for certificates whose signatures are checked."""
    issuer, name = _common_name(intermediate.subject), _common_name(leaf.subject)
    authority = _common_name(root.subject)
    for product in PRODUCTS:
        for role, expected in (("VCEK", f"SEV-{product}"), ("VLEK", f"SEV-VLEK-{product}")):
            if issuer != prefix + expected:
                continue
            if name != f"{prefix}SEV-{role}":
                raise SnpError("cert.role", f"{issuer} does not issue such keys", expected=f"SEV-{role}", found=name)
            if authority != f"{prefix}ARK-{product}":
                raise SnpError("cert.product", "root and intermediate are of different products", found=authority)
            return ("VCEK" if role == "VCEK" else "VLEK"), product
    raise SnpError("cert.role", "the intermediate is neither an ASK nor an ASVK", found=issuer)


def verify_chain(chain: CertificateChain, anchors: TrustAnchors, now: datetime) -> SigningKey:
    """Verify a chain of untrusted certificates up to a pinned root at one moment (aware datetime).

    Raises SnpError of the ``cert`` family (``bind.struct_version``, ``emulated.marker`` too).
    """
    names = ("the VCEK or VLEK", "the ASK or ASVK", "the ARK")
    parsed = [_load(der, what) for der, what in zip((chain.leaf, chain.intermediate, chain.root), names, strict=True)]
    leaf, intermediate, root = parsed
    product = anchors.product(chain.root)
    if product is None:
        raise _untrusted_root(chain.root, root)
    _check_issued(root, root, names[2])
    _check_issued(intermediate, root, names[1])
    _check_issued(leaf, intermediate, names[0])
    for certificate, what in zip(parsed, names, strict=True):
        _check_extensions(certificate, what, emulated=anchors.emulated)
    _check_authority(root, names[2])
    _check_authority(intermediate, names[1])
    key = _leaf_key(leaf)
    role, named_product = _role(leaf, intermediate, root, oids.EMULATED_NAME_PREFIX if anchors.emulated else "")
    for certificate, what in zip(parsed, names, strict=True):
        _check_validity(certificate, what, now)
    if named_product != product:
        raise SnpError("cert.product", "the names are of another product", expected=product, found=named_product)
    return SigningKey(role, product, anchors.emulated, key, read_extensions(leaf, role, product))


def _untrusted_root(der: bytes, root: x509.Certificate) -> SnpError:
    marked = any(extension.oid.dotted_string == oids.EMULATION_MARKER for extension in root.extensions)
    return SnpError(
        "cert.root_untrusted",
        f"the root ({_common_name(root.subject)}) is not among the trust anchors",
        found=f"sha256 {fingerprint(der)}",
        hint="this is evidence of an emulated processor, which protects nothing" if marked else "names prove nothing",
    )


def check_revocation(chain: CertificateChain, now: datetime, mode: CrlMode) -> bool:
    """Judge the intermediate by the root's CRL; AMD does not list chip keys. Call after :func:`verify_chain`.

    Returns whether a CRL was used. Raises SnpError ``cert.crl_missing``, ``cert.crl_signature``, ``cert.crl_stale``,
    ``cert.revoked`` or ``cert.parse``.
    """
    if mode == "off" or (chain.crl is None and mode == "use-if-present"):
        return False
    if chain.crl is None:
        raise SnpError("cert.crl_missing", "a CRL is required and none was given")
    root, intermediate = _load(chain.root, "the ARK"), _load(chain.intermediate, "the ASK or ASVK")
    crl = _load_crl(chain.crl)
    _check_crl_signature(crl, root)
    if crl.next_update_utc is None or not crl.last_update_utc <= now <= crl.next_update_utc:
        raise SnpError(
            "cert.crl_stale",
            "the CRL is not valid at the time of verification",
            expected=f"{crl.last_update_utc.isoformat()} to {crl.next_update_utc and crl.next_update_utc.isoformat()}",
            found=now.isoformat(),
            hint="fetch a new one",
        )
    for certificate in (intermediate, root):
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise SnpError("cert.revoked", f"{_common_name(certificate.subject)} is revoked")
    return True


def _load_crl(der: bytes) -> x509.CertificateRevocationList:
    if len(der) > MAX_CRL_SIZE:
        raise SnpError("cert.parse", "the CRL is too large", expected=f"at most {MAX_CRL_SIZE} bytes")
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.extensions, crl.issuer, crl.last_update_utc, crl.next_update_utc)
    except _PARSE_ERRORS as error:
        raise SnpError("cert.parse", f"not a CRL: {error}") from None
    return crl


def _check_crl_signature(crl: x509.CertificateRevocationList, root: x509.Certificate) -> None:
    wrong = SnpError("cert.crl_signature", "the CRL is not signed by the chain's root")
    key = root.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or crl.issuer != root.subject:
        raise wrong
    try:
        key.verify(crl.signature, crl.tbs_certlist_bytes, _PSS, hashes.SHA384())
    except InvalidSignature:
        raise wrong from None
