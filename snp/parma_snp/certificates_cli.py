# SPDX-License-Identifier: Apache-2.0
"""``parma certificates``: where AMD has the certificate for a report, or the CRL, and getting it when asked to."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parma_snp import kds
from parma_snp.errors import SnpError

if TYPE_CHECKING:
    from parma_snp.certificates import CertificateChain
    from parma_snp.report import Product, Report

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - no public name for it

DONE: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2

_SECONDS: Final = 30
_MAX_ANSWER: Final = 64 * 1024


def add_certificates(subparsers: _Subparsers) -> None:
    """Add ``certificates``. It sets ``run``, a function from the parsed arguments to the exit status."""
    parser = subparsers.add_parser(
        "certificates",
        help="find the certificate that signs a report",
        description="Print where AMD's key distribution service has the VCEK for a report; with --fetch, get it and "
        " write it with AMD's ASK and ARK as a PEM chain, after checking that it signed this report. With --crl, the "
        "same for the revocation list, which 'parma verify --crl' takes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "evidence", type=Path, nargs="?", metavar="FILE", help="evidence document, or a bare report of 1184 bytes"
    )
    what.add_argument("--this-host", action="store_true", help="for the processor of this host, before any report")
    parser.add_argument("--product", choices=("Milan", "Genoa", "Turin"), help="needed for reports of version 2")
    parser.add_argument("--crl", action="store_true", help="the revocation list instead of the certificate")
    parser.add_argument("--fetch", type=Path, metavar="OUT", help="fetch over the network and write it to OUT")
    parser.add_argument(
        "--service", default=kds.SERVICE, metavar="URL", help="a mirror of the service (default: %(default)s)"
    )
    parser.set_defaults(run=run_certificates)


def run_certificates(options: argparse.Namespace) -> int:
    """``parma certificates``."""
    try:
        service = options.service.rstrip("/")
        report = None if options.this_host else _report(options.evidence.read_bytes())
        if options.crl:
            return _revocation_list(report, options, service)
        if report is None:
            url = _of_this_host(options.product, service)
        else:
            url = kds.vcek_url(report, options.product, service=service)
        if options.fetch is None:
            print(url)
            return DONE
        chain = _checked(_fetch(url), report) if report else _checked_for_this_host(_fetch(url))
        options.fetch.write_text(chain.to_pem())
    except SnpError as error:
        print(f"parma certificates: {error}", file=sys.stderr)
        return UNUSABLE if error.code == "usage" else FAILED
    except OSError as error:
        print(f"parma certificates: {error}", file=sys.stderr)
        return UNUSABLE
    print(f"{options.fetch}: VCEK, ASK and ARK")
    return DONE


def _revocation_list(report: Report | None, options: argparse.Namespace, service: str) -> int:
    """Print where the ARK's CRL is, or get it."""
    from parma_snp.probes.processor import this_product
    from parma_snp.report import SIGNING_KEY_VLEK

    product = kds.product_for(report, options.product) if report else options.product or this_product()
    vlek = report is not None and report.signing_key == SIGNING_KEY_VLEK
    url = kds.crl_url(product, vlek=vlek, service=service)
    if options.fetch is None:
        print(url)
        return DONE
    options.fetch.write_bytes(_checked_list(_fetch(url), product, vlek=vlek))
    print(f"{options.fetch}: revocation list of ARK-{product}")
    return DONE


def _checked_list(der: bytes, product: Product, *, vlek: bool) -> bytes:
    """The CRL, if AMD's ARK signed it and it is current. What it lists is for the verification to say."""
    from parma_snp.anchors import bundled
    from parma_snp.certificates import CertificateChain, check_revocation

    chain = CertificateChain(b"", bundled("asvk" if vlek else "ask", product), bundled("ark", product), der)
    try:
        check_revocation(chain, datetime.now(UTC), "require")
    except SnpError as error:
        if error.code != "cert.revoked":
            raise
    return der


def _report(data: bytes) -> Report:
    from parma_snp import evidence, report

    return report.parse(evidence.parse(data).report if data.lstrip()[:1] == b"{" else data)


def _of_this_host(named: Product | None, service: str) -> str:
    from parma_snp import platform
    from parma_snp.probes.processor import this_product

    product = named or this_product()
    return kds.vcek_address(product, platform.read_chip_id(), platform.read_status().tcb(product), service=service)


def _checked_for_this_host(der: bytes) -> CertificateChain:
    """The chain, if AMD issued it for this very processor."""
    from parma_snp import platform
    from parma_snp.anchors import AMD
    from parma_snp.certificates import complete_chain, verify_chain
    from parma_snp.extensions import HWID_SIZE, TURIN_HWID_SIZE
    from parma_snp.report import TURIN

    chain = complete_chain(der)
    key = verify_chain(chain, AMD, datetime.now(UTC))
    # AMD's certificates for Turin have the 8 bytes of the chip id that are not zero.
    size = TURIN_HWID_SIZE if key.product == TURIN else HWID_SIZE
    if (key.extensions.chip_id or b"")[:size] != platform.read_chip_id()[:size]:
        raise SnpError("kds.answer", "the certificate is for another processor")
    return chain


def _fetch(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    if not url.startswith(("https://", "http://")):
        raise SnpError("usage", "not an address of the web", found=url)
    try:
        with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - the scheme is checked
            data: bytes = answer.read(_MAX_ANSWER + 1)
    except HTTPError as error:
        hint = {404: "no such chip and TCB: is it the right product?", 429: "too many requests: try again later"}
        raise SnpError(
            "kds.answer", f"the service answers {error.code} {error.reason}", hint=hint.get(error.code, "")
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        raise SnpError("kds.unreachable", f"the service cannot be reached: {error}", hint=url) from None
    return data


def _checked(der: bytes, report: Report) -> CertificateChain:
    """The chain, if its key signed this report: a wrong certificate is better noticed now than at the verification."""
    from parma_snp.certificates import complete_chain
    from parma_snp.expected import UNCHECKED, Expected
    from parma_snp.verify import verify

    chain = complete_chain(der)
    anything = Expected(UNCHECKED, UNCHECKED, UNCHECKED, vmpl=UNCHECKED, vlek_csp_ids=UNCHECKED, min_tcb={})
    verdict = verify(report.raw, chain, now=datetime.now(UTC), expected=anything)
    if not verdict.authentic:
        verdict.require()
    return chain
