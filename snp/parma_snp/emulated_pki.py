# SPDX-License-Identifier: Apache-2.0
"""The throw-away certificates of one emulated secure processor.

Shaped like AMD's (publication 57230) so that the same verifier reads them, and marked so that none can pass for them:
every certificate carries a critical extension that only the emulation-aware verifier understands, and says in its names
that it is not AMD's. The private keys of root and intermediate are dropped as soon as they have signed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from parma_snp import der, oids
from parma_snp.report import MILAN

_LIFETIME: Final = timedelta(days=7 * 365)
_BACKDATE: Final = timedelta(days=1)  # clocks of host and verifier may differ a little
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


class EmulatedPki(NamedTuple):
    """PEM: the VCEK's private key (PKCS 8), the chain VCEK, ASK, ARK, and the ARK once more for verifiers."""

    key: bytes
    chain: bytes
    root: bytes


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, oids.EMULATED_ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, oids.EMULATED_NAME_PREFIX + common_name),
        ]
    )


def _builder(subject: str, issuer: str, serial: int, now: datetime) -> x509.CertificateBuilder:
    begin = now - _BACKDATE
    builder = x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer)).serial_number(serial)
    builder = builder.not_valid_before(begin).not_valid_after(begin + _LIFETIME)
    marker = x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.EMULATION_MARKER), oids.EMULATION_MARKER_VALUE)
    return builder.add_extension(marker, critical=True)


def _authority_extensions(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(usage, critical=True)


def _key_extensions(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    zero = der.encode_integer(0)
    levels = (oids.BL_SPL, oids.TEE_SPL, oids.SNP_SPL, oids.UCODE_SPL, oids.SPL_4, oids.SPL_5, oids.SPL_6, oids.SPL_7)
    values = {
        oids.STRUCT_VERSION: zero,
        oids.PRODUCT_NAME: der.encode_ia5(f"{MILAN}-EMULATED"),
        **dict.fromkeys(levels, zero),
        oids.HWID: oids.EMULATED_CHIP_ID,
    }
    for oid, value in values.items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder


def create(now: datetime) -> EmulatedPki:
    """Make a new key and its chain; takes seconds, for the two RSA-4096 keys."""
    ark, ask, vcek = f"ARK-{MILAN}", f"SEV-{MILAN}", "SEV-VCEK"
    ark_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    ask_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    vcek_key = ec.generate_private_key(ec.SECP384R1())

    def issue(builder: x509.CertificateBuilder, key: rsa.RSAPrivateKey) -> bytes:
        return builder.sign(key, hashes.SHA384(), rsa_padding=_PSS).public_bytes(Encoding.PEM)

    root_builder = _builder(ark, ark, 1, now).public_key(ark_key.public_key())
    root = issue(_authority_extensions(root_builder, 1), ark_key)
    ask_builder = _builder(ask, ark, 2, now).public_key(ask_key.public_key())
    intermediate = issue(_authority_extensions(ask_builder, 0), ark_key)
    leaf = issue(_key_extensions(_builder(vcek, ask, 3, now).public_key(vcek_key.public_key())), ask_key)
    key = vcek_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return EmulatedPki(key, leaf + intermediate + root, root)
