# SPDX-License-Identifier: Apache-2.0
"""Where AMD's key distribution service has the certificates for a report.

Source: AMD publication 57230, chapter on the KDS interface. Only addresses are made here; who fetches from them is the
caller's business, and what comes back is verified like any other certificate. The service limits the rate of requests:
keep what it gave, by chip and TCB.
"""

from __future__ import annotations

from typing import Final

from parma_snp.errors import SnpError
from parma_snp.report import SIGNING_KEY_VLEK, TURIN, TURIN_CHIP_ID_SIZE, Product, Report, Tcb, product_of

SERVICE: Final = "https://kdsintf.amd.com"
_PARAMETERS: Final = {"fmc": "fmcSPL", "bl": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "ucode": "ucodeSPL"}


def product_for(report: Report, product: Product | None = None) -> Product:
    """The product to ask for: the named one, else that of the report (version 3 and later).

    Raises SnpError ``kds.product``, ``usage`` when both are known and differ.
    """
    cpu = report.cpuid
    reported = product_of(cpu.family, cpu.model) if cpu is not None else None
    if product is not None and reported not in (None, product):
        raise SnpError("usage", "the report is of another product", expected=product, found=str(reported))
    found = product or reported
    if found is None:
        hint = "name it: --product Milan or --product Genoa" if cpu is None else ""
        raise SnpError("kds.product", "the report does not say which product it is of", hint=hint)
    return found


def vcek_url(report: Report, product: Product | None = None, *, service: str = SERVICE) -> str:
    """Where the VCEK (DER) of this chip for its REPORTED_TCB is.

    Raises SnpError ``kds.product``, ``kds.vlek`` (AMD hands VLEKs to the provider only), ``kds.chip_id``, ``usage``.
    """
    if report.signing_key == SIGNING_KEY_VLEK:
        raise SnpError("kds.vlek", "the report is signed by a VLEK, which only the cloud provider can hand out")
    if not any(report.chip_id):
        raise SnpError("kds.chip_id", "CHIP_ID is masked; the certificate cannot be asked for")
    product = product_for(report, product)
    return vcek_address(product, report.chip_id, report.tcb("reported", product), service=service)


def vcek_address(product: Product, chip_id: bytes, tcb: Tcb, *, service: str = SERVICE) -> str:
    """Where the VCEK (DER) of the chip with this CHIP_ID (64 bytes) is for these patch levels."""
    chip = chip_id[:TURIN_CHIP_ID_SIZE] if product == TURIN else chip_id
    levels = ((word, tcb.component(name)) for name, word in _PARAMETERS.items())
    query = "&".join(f"{word}={level:02d}" for word, level in levels if level is not None)
    return f"{service}/vcek/v1/{product}/{chip.hex()}?{query}"


def crl_url(product: Product, *, vlek: bool = False, service: str = SERVICE) -> str:
    """Where the ARK's revocation list (DER) is."""
    return f"{service}/{'vlek' if vlek else 'vcek'}/v1/{product}/crl"
