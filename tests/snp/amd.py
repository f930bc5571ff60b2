# SPDX-License-Identifier: Apache-2.0
"""A throw-away stand-in for AMD: roots, chip keys and signed reports of every product, for what real ones lack."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from parma_snp import der, oids
from parma_snp.anchors import TrustAnchors, other_roots
from parma_snp.certificates import CertificateChain
from parma_snp.report import GENOA, MILAN, PRODUCTS, REPORT_SIZE, SIGNED_SIZE, TURIN, Product

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
BEGIN, END = NOW - timedelta(days=365), NOW + timedelta(days=365)
PSS: Final = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
LEVELS: Final[Mapping[Product, Mapping[str, int]]] = {
    MILAN: {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    GENOA: {"bl": 10, "tee": 0, "snp": 23, "ucode": 84},
    TURIN: {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81},
}
CPUID: Final[Mapping[Product, tuple[int, int, int]]] = {
    MILAN: (0x19, 1, 1),
    GENOA: (0x19, 0x11, 1),
    TURIN: (0x1A, 2, 1),
}
CHIP_ID: Final[Mapping[Product, bytes]] = {
    MILAN: bytes(range(1, 65)),
    GENOA: bytes(range(65, 129)),
    TURIN: bytes(range(1, 9)),
}
_SPL: Final = {
    "fmc": oids.FMC_SPL,
    "bl": oids.BL_SPL,
    "tee": oids.TEE_SPL,
    "snp": oids.SNP_SPL,
    "ucode": oids.UCODE_SPL,
}


def tcb(product: Product, levels: Mapping[str, int]) -> bytes:
    """A TCB_VERSION, 8 bytes."""
    if product == TURIN:
        return bytes((levels["fmc"], levels["bl"], levels["tee"], levels["snp"], 0, 0, 0, levels["ucode"]))
    return bytes((levels["bl"], levels["tee"], 0, 0, 0, 0, levels["snp"], levels["ucode"]))


@dataclass(frozen=True)
class Amd:
    """One RSA key signs as every authority: that is enough to tell right from wrong."""

    key: rsa.RSAPrivateKey
    chip: ec.EllipticCurvePrivateKey
    _issued: dict[tuple[str, str, bool], bytes] = field(default_factory=dict)

    @classmethod
    def make(cls) -> Amd:
        return cls(rsa.generate_private_key(65537, 4096), ec.generate_private_key(ec.SECP384R1()))

    @cached_property
    def roots(self) -> TrustAnchors:
        return other_roots({product: self.authority(f"ARK-{product}", f"ARK-{product}") for product in PRODUCTS})

    def authority(self, name: str, issuer: str, *, ca: bool = True) -> bytes:
        """DER of an ARK, ASK or ASVK; the same whenever it is asked for, as signatures are not."""
        if (name, issuer, ca) not in self._issued:
            builder = x509.CertificateBuilder(
                _name(issuer), _name(name), self.key.public_key(), serial(name), BEGIN, END
            )
            may = {"key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False}
            builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
            builder = builder.add_extension(x509.KeyUsage(*(False,) * 5, **may), critical=True)
            self._issued[name, issuer, ca] = self._sign(builder)
        return self._issued[name, issuer, ca]

    def leaf(self, product: Product, role: str, issuer: str, extensions: Mapping[str, bytes | None]) -> bytes:
        """DER of a VCEK or VLEK. ``extensions`` by OID replace the usual ones; None leaves one out."""
        usual: dict[str, bytes] = {
            oids.STRUCT_VERSION: der.encode_integer(int(product == TURIN)),
            oids.PRODUCT_NAME: der.encode_ia5(f"{product}-B0"),
            **{_SPL[name]: der.encode_integer(level) for name, level in LEVELS[product].items()},
            **({oids.HWID: CHIP_ID[product]} if role == "VCEK" else {oids.CSP_ID: der.encode_ia5("CN=cloud")}),
        }
        builder = x509.CertificateBuilder(_name(issuer), _name(f"SEV-{role}"), self.chip.public_key(), 1, BEGIN, END)
        for oid, value in {**usual, **extensions}.items():
            if value is not None:
                unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
                builder = builder.add_extension(unknown, critical=False)
        return self._sign(builder)

    def chain(
        self,
        product: Product,
        role: str = "VCEK",
        *,
        crl: bytes | None = None,
        extensions: Mapping[str, bytes | None] | None = None,
    ) -> CertificateChain:
        """``extensions``: names of ``parma_snp.oids`` and values, see :meth:`leaf`."""
        issuer = f"SEV-{product}" if role == "VCEK" else f"SEV-VLEK-{product}"
        changed = {getattr(oids, name): value for name, value in (extensions or {}).items()}
        root = f"ARK-{product}"
        leaf = self.leaf(product, role, issuer, changed)
        return CertificateChain(leaf, self.authority(issuer, root), self.authority(root, root), crl)

    def crl(
        self, product: Product, *revoked: str, until: datetime = END, signer: rsa.RSAPrivateKey | None = None
    ) -> bytes:
        """A CRL of the product's ARK that revokes the authorities of these names."""
        builder = x509.CertificateRevocationListBuilder(_name(f"ARK-{product}"), BEGIN, until)
        for name in revoked:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial(name), BEGIN).build())
        return builder.sign(signer or self.key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)

    def report(self, product: Product, version: int = 3, role: str = "VCEK", **changes: Any) -> bytes:
        """A signed report. ``changes``: ``levels``, ``cpuid``, ``chip_id``, and bytes by offset in ``poke``."""
        data = bytearray(REPORT_SIZE)
        level = tcb(product, changes.get("levels", LEVELS[product]))
        struct.pack_into("<IIQ", data, 0, version, 0, 0x30000)
        data[0x34], data[0x48] = 1, 4 if role == "VLEK" else 0
        for offset in (0x38, 0x180, 0x1E0, 0x1F0):
            data[offset : offset + 8] = level
        if version >= 3:
            data[0x188:0x18B] = bytes(changes.get("cpuid", CPUID[product]))
        chip_id = changes.get("chip_id", CHIP_ID[product] if role == "VCEK" else b"")
        data[0x1A0:0x1E0] = chip_id.ljust(64, b"\0")
        for offset, value in changes.get("poke", {}).items():
            data[offset : offset + len(value)] = value
        signature = self.chip.sign(bytes(data[:SIGNED_SIZE]), ec.ECDSA(hashes.SHA384()))
        r, s = (number.to_bytes(72, "little") for number in decode_dss_signature(signature))
        data[SIGNED_SIZE : SIGNED_SIZE + 144] = r + s
        return bytes(data)

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


def serial(name: str) -> int:
    """An authority's serial number."""
    return int.from_bytes(name.encode(), "big") + 1


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
