# SPDX-License-Identifier: Apache-2.0
"""AMD's extensions in VCEK and VLEK certificates: which chip or provider, which firmware levels.

Source: AMD publication 57230, table "VCEK Certificate x.509v3 Extensions".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509

from parma_snp import der, oids
from parma_snp.errors import SnpError
from parma_snp.report import TURIN, TURIN_CHIP_ID_SIZE, Product, Tcb

HWID_SIZE: Final = 64
TURIN_HWID_SIZE: Final = TURIN_CHIP_ID_SIZE

_REQUIRED_SPL: Final = {"bl": oids.BL_SPL, "tee": oids.TEE_SPL, "snp": oids.SNP_SPL, "ucode": oids.UCODE_SPL}
_SPARE_SPL: Final = (oids.SPL_4, oids.SPL_5, oids.SPL_6, oids.SPL_7)
AMD_OIDS: Final = frozenset(
    {oids.STRUCT_VERSION, oids.PRODUCT_NAME, oids.FMC_SPL, oids.HWID, oids.CSP_ID, *_REQUIRED_SPL.values(), *_SPARE_SPL}
)


@dataclass(frozen=True)
class KeyExtensions:
    """What a VCEK or VLEK certificate states. ``chip_id`` is HWID padded with zeros to 64 bytes; None for a VLEK."""

    product_name: str
    tcb: Tcb
    chip_id: bytes | None
    csp_id: str | None


def _integer(values: Mapping[str, bytes], oid: str, what: str) -> int:
    if oid not in values:
        raise SnpError("cert.extensions", f"the certificate lacks its {what} extension", expected=oid)
    try:
        number = der.unsigned_integer(values[oid])
    except ValueError as error:
        raise SnpError("cert.extensions", f"the {what} extension is malformed: {error}") from None
    if number > 0xFF:
        raise SnpError("cert.extensions", f"the {what} extension is out of range", expected="0..255", found=str(number))
    return number


def _text(values: Mapping[str, bytes], oid: str, what: str) -> str:
    if oid not in values:
        raise SnpError("cert.extensions", f"the certificate lacks its {what} extension", expected=oid)
    try:
        return der.text(values[oid])
    except ValueError as error:
        raise SnpError("cert.extensions", f"the {what} extension is malformed: {error}") from None


def _levels(values: Mapping[str, bytes], product: Product) -> Tcb:
    level = {name: _integer(values, oid, f"{name} patch level") for name, oid in _REQUIRED_SPL.items()}
    fmc = None
    if product == TURIN:
        fmc = _integer(values, oids.FMC_SPL, "fmc patch level")
    elif oids.FMC_SPL in values:
        raise SnpError("cert.extensions", f"{product} has no fmc patch level, the certificate has one")
    spare = bytes(_integer(values, oid, "spare patch level") if oid in values else 0 for oid in _SPARE_SPL)
    if product == TURIN:
        # Turin's TCB_VERSION has three reserved bytes; the first spare level has no place in it.
        if spare[0]:
            raise SnpError("cert.extensions", "a spare patch level that Turin does not have is set")
        spare = spare[1:]
    return Tcb(fmc, level["bl"], level["tee"], level["snp"], level["ucode"], spare)


def _chip_id(values: Mapping[str, bytes], product: Product) -> bytes:
    if oids.HWID not in values:
        raise SnpError("cert.extensions", "the VCEK lacks its HWID extension", expected=oids.HWID)
    size = TURIN_HWID_SIZE if product == TURIN else HWID_SIZE
    try:
        return der.octets(values[oids.HWID], size).ljust(HWID_SIZE, b"\0")
    except ValueError as error:
        raise SnpError("cert.extensions", f"the HWID extension is malformed: {error}") from None


def read_extensions(certificate: x509.Certificate, role: Literal["VCEK", "VLEK"], product: Product) -> KeyExtensions:
    """Read the extensions of a leaf whose signature is already checked.

    Raises SnpError ``cert.extensions``, ``cert.product`` or ``bind.struct_version``.
    """
    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    struct_version = _integer(values, oids.STRUCT_VERSION, "structVersion")
    if struct_version != (1 if product == TURIN else 0):
        raise SnpError("bind.struct_version", f"unknown certificate structure for {product}", found=str(struct_version))
    product_name = _text(values, oids.PRODUCT_NAME, "productName")
    if product_name.split("-")[0] != product:
        raise SnpError("cert.product", "the certificate names another product", expected=product, found=product_name)
    tcb = _levels(values, product)
    if role == "VCEK":
        if oids.CSP_ID in values:
            raise SnpError("cert.extensions", "a VCEK must not carry a CSP_ID")
        return KeyExtensions(product_name, tcb, _chip_id(values, product), None)
    if oids.HWID in values:
        raise SnpError("cert.extensions", "a VLEK must not carry a HWID")
    return KeyExtensions(product_name, tcb, None, _text(values, oids.CSP_ID, "CSP_ID"))
