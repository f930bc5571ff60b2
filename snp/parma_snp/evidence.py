# SPDX-License-Identifier: Apache-2.0
"""The evidence document: all that a relying party needs to judge one VM, in one JSON file.

::

    {"format": "parma-evidence/1",
     "tee": "snp" | "emulated" | "none",
     "report": base64 of the 1184 bytes, empty with tee none,
     "certificates": PEM of VCEK or VLEK, ASK, ARK; empty if the host could not get them,
     "policy": base64 of the exact policy bytes, whose SHA-256 is HOST_DATA,
     "endorsement": base64 of the COSE_Sign1 in which the image's issuer vouches for the measurement; empty if none,
     "report_data": lower-case hex of the 64 bytes that were asked for}

Nothing in it is believed: ``tee``, ``policy`` and ``report_data`` are claims of the host that the report must confirm.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from parma_snp.errors import SnpError
from parma_snp.permissive import is_permissive
from parma_snp.report import REPORT_DATA_SIZE, REPORT_SIZE, Product
from parma_snp.strict_json import Object

if TYPE_CHECKING:
    from parma_snp.anchors import TrustAnchors
    from parma_snp.certificates import CrlMode
    from parma_snp.expected import Expected
    from parma_snp.verify import Check, Verdict

Tee = Literal["snp", "emulated", "none"]
TEES: Final[tuple[Tee, ...]] = ("snp", "emulated", "none")
FORMAT: Final = "parma-evidence/1"
MAX_EVIDENCE_SIZE: Final = 4 * 1024 * 1024  # a policy of 2 MiB in base64, and room for the rest
_KEYS: Final = ("format", "tee", "report", "certificates", "policy", "endorsement", "report_data")
_CODE: Final = "evidence.format"


@dataclass(frozen=True)
class Evidence:
    """The document, decoded. ``certificates`` stays PEM."""

    tee: Tee
    policy: bytes
    report: bytes = b""
    certificates: str = ""
    report_data: bytes = bytes(REPORT_DATA_SIZE)
    endorsement: bytes = b""

    @property
    def policy_sha256(self) -> bytes:
        """What HOST_DATA has to be."""
        return hashlib.sha256(self.policy).digest()

    def to_json(self) -> dict[str, str]:
        """The document as a JSON object."""
        return {
            "format": FORMAT,
            "tee": self.tee,
            "report": base64.b64encode(self.report).decode(),
            "certificates": self.certificates,
            "policy": base64.b64encode(self.policy).decode(),
            "endorsement": base64.b64encode(self.endorsement).decode(),
            "report_data": self.report_data.hex(),
        }

    def dumps(self) -> str:
        """The document as text, one line for each key."""
        return json.dumps(self.to_json(), indent=1) + "\n"


def _decode(document: Object) -> Evidence:
    document.require_keys(_KEYS)
    document.one_of("format", (FORMAT,))
    named = document.one_of("tee", TEES)
    tee = next(tee for tee in TEES if tee == named)
    evidence = Evidence(
        tee=tee,
        policy=document.base64("policy"),
        report=document.base64("report"),
        certificates=document.text("certificates"),
        report_data=document.hex("report_data"),
        endorsement=document.base64("endorsement"),
    )
    if len(evidence.report) != (0 if tee == "none" else REPORT_SIZE):
        expected = "none" if tee == "none" else f"{REPORT_SIZE} bytes"
        raise SnpError(_CODE, f"wrong report for tee {tee}", expected=expected, found=f"{len(evidence.report)} bytes")
    if len(evidence.report_data) != REPORT_DATA_SIZE:
        raise SnpError(_CODE, "report_data has another length", expected=f"{REPORT_DATA_SIZE} bytes")
    return evidence


def parse(data: bytes) -> Evidence:
    """Read an untrusted evidence document. Raises SnpError ``evidence.format``."""
    return _decode(Object.parse(data, code=_CODE, limit=MAX_EVIDENCE_SIZE))


def from_json(document: dict[str, object]) -> Evidence:
    """Read a document that is already decoded, as part of another one. Raises SnpError ``evidence.format``."""
    return _decode(Object(document, _CODE))


def verify_evidence(
    evidence: Evidence,
    *,
    now: datetime,
    expected: Expected,
    roots: TrustAnchors,
    crl: CrlMode = "use-if-present",
    crl_der: bytes | None = None,
    product: Product | None = None,
    allow_emulated: bool = False,
) -> Verdict:
    """Judge evidence like :func:`parma_snp.verify.verify`, and that its claims are those of the report.

    Raises SnpError ``evidence.unattested`` for tee ``none``, ``evidence.certificates`` when there are none,
    ``emulated.not_allowed`` or ``usage``; everything else wrong is in the verdict.
    """
    # Imported late: those who only build or read evidence need no cryptography.
    from parma_snp.certificates import CertificateChain
    from parma_snp.verify import Check, Verdict, verify

    if evidence.tee == "none":
        raise SnpError("evidence.unattested", "the VM runs without a secure processor; there is nothing to verify")
    if not evidence.certificates:
        raise without_certificates(evidence.report, product)
    if evidence.tee == "emulated" and not allow_emulated:
        raise SnpError(
            "emulated.not_allowed",
            "the evidence is of an emulated secure processor, which protects nothing",
            hint="accept it in development with --allow-emulated and --emulated-root",
        )
    try:
        chain = CertificateChain.from_pem(evidence.certificates.encode())
    except SnpError as error:
        return Verdict((Check("certificates", error.message, (error,)),), roots.emulated, expected.unchecked)
    chain = replace(chain, crl=crl_der)
    verdict = verify(
        evidence.report,
        chain,
        now=now,
        expected=expected,
        roots=roots,
        product=product,
        crl=crl,
        allow_emulated=allow_emulated,
        endorsement=evidence.endorsement,
    )
    if not verdict.authentic or verdict.report is None:
        return verdict
    failures = tuple(_false_claims(evidence, verdict))
    detail = "; ".join(failure.message for failure in failures) or "policy and report_data are those of the report"
    claims = Check("claims", detail, failures, "policy, report_data and tee as the report shows them", detail)
    return replace(verdict, checks=(*verdict.checks, claims, strictness(evidence.policy, expected)))


def strictness(policy: bytes, expected: Expected) -> Check:
    """Whether the policy with the right hash forbids anything at all."""
    from parma_snp.verify import Check

    found = "forbids nothing" if is_permissive(policy) else "forbids what it does not list"
    failure = SnpError("evidence.permissive", "the policy forbids nothing: it is for learning only")
    refused = is_permissive(policy) and not expected.allow_permissive
    wanted = "any policy" if expected.allow_permissive else "a policy that forbids"
    return Check("strictness", found, (failure,) if refused else (), wanted, found)


def without_certificates(unverified_report: bytes, product: Product | None) -> SnpError:
    """What to say when the certificates are missing: where AMD has them."""
    from parma_snp import kds
    from parma_snp.report import parse as parse_report

    try:
        place = kds.vcek_url(parse_report(unverified_report), product)
    except SnpError as error:
        place = f"{kds.SERVICE} ({error.message})"
    hint = f"add the VCEK of this chip and TCB (--certificates); AMD serves it at {place}"
    return SnpError("evidence.certificates", "the evidence comes without certificates", hint=hint)


def _false_claims(evidence: Evidence, verdict: Verdict) -> list[SnpError]:
    report = verdict.require_report()
    claims = (
        ("evidence.policy", "the policy in the evidence is not the VM's", evidence.policy_sha256, report.host_data),
        ("evidence.report_data", "the evidence claims other REPORT_DATA", evidence.report_data, report.report_data),
    )
    false = [
        SnpError(code, message, expected=reported.hex(), found=claimed.hex())
        for code, message, claimed, reported in claims
        if claimed != reported
    ]
    if (evidence.tee == "emulated") != verdict.emulated:
        false.append(SnpError("evidence.tee", "the evidence claims another kind of processor", found=evidence.tee))
    return false
