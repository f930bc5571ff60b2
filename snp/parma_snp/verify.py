# SPDX-License-Identifier: Apache-2.0
"""Verify one report: form, chain, signature, bindings, then appraisal. Offline and pure but for the bundled data.

Everything that arrives from outside (report, certificates, CRL) may be garbage; the answer is a verdict, never an
exception. Exceptions (``SnpError``, code ``usage``) are for a caller who asks for something contradictory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from parma_snp import oids
from parma_snp.anchors import AMD, TrustAnchors
from parma_snp.appraise import Subject, appraise
from parma_snp.certificates import CertificateChain, CrlMode, Role, SigningKey, check_revocation, verify_chain
from parma_snp.errors import SnpError
from parma_snp.expected import Expected
from parma_snp.report import (
    REPORT_SIZE,
    SIGNING_KEY_NONE,
    SIGNING_KEY_VCEK,
    Product,
    Report,
    parse,
    product_of,
)

P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)


@dataclass(frozen=True)
class Check:
    """One step of a verification, in the order it was taken. ``failures`` empty: passed.

    ``name`` is stable (see ``parma_snp.explain``); ``wanted`` and ``found`` are for people.
    """

    name: str
    detail: str
    failures: tuple[SnpError, ...] = ()
    wanted: str = ""
    found: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome. ``authentic`` is about the signature, ``accepted`` about everything the relying party asked for.

    ``report`` is None when the bytes are no report; without ``authentic`` its fields are anybody's claim. ``emulated``
    repeats that the anchors were those of an emulated processor. ``unchecked`` names what was left out on request.
    """

    checks: tuple[Check, ...]
    emulated: bool
    unchecked: tuple[str, ...]
    report: Report | None = None
    authentic: bool = False
    product: Product | None = None
    role: Role | None = None

    @property
    def failures(self) -> tuple[SnpError, ...]:
        """Every reason for a refusal, in the order of the checks."""
        return tuple(failure for check in self.checks for failure in check.failures)

    @property
    def accepted(self) -> bool:
        return self.authentic and not self.failures

    def require(self) -> Report:
        """The report of an accepted verdict; otherwise raises the first failure (SnpError)."""
        if not self.accepted:
            raise self.failures[0]
        return self.require_report()

    def require_report(self) -> Report:
        """The report, accepted or not; raises the first failure (SnpError) when the bytes were none."""
        if self.report is None:
            raise self.failures[0]
        return self.report


class _Stop(Exception):
    """A failure after which nothing further in the evidence can be believed."""


class _Verification:
    """Collects the checks of one verification."""

    def __init__(self, anchors: TrustAnchors, now: datetime, expected: Expected) -> None:
        self.anchors = anchors
        self.now = now
        self.expected = expected
        self.checks: list[Check] = []
        self.report: Report | None = None
        self.key: SigningKey | None = None
        self.authentic = False

    def passed(self, name: str, detail: str, *, wanted: str = "", found: str = "") -> None:
        self.checks.append(Check(name, detail, (), wanted, found))

    def failed(self, name: str, failure: SnpError) -> _Stop:
        self.checks.append(Check(name, failure.message, (failure,), failure.expected, failure.found))
        return _Stop()

    def form(self, data: bytes) -> Report:
        try:
            self.report = report = parse(data)
        except SnpError as error:
            raise self.failed("form", error) from None
        found = f"version {report.version}, {len(report.raw)} bytes, reserved fields zero"
        self.passed("form", found, wanted=f"a report of {REPORT_SIZE} bytes, version 2 to 5", found=found)
        return report

    def certificates(self, chain: CertificateChain, crl: CrlMode) -> SigningKey:
        try:
            self.key = key = verify_chain(chain, self.anchors, self.now)
        except SnpError as error:
            raise self.failed("certificates", error) from None
        root = "the named emulated root" if self.anchors.emulated else "a pinned root"
        found = f"{key.role} of {key.product} up to {root}, valid at {self.now.isoformat()}"
        self.passed("certificates", found, wanted=f"a chain from a VCEK or VLEK to {root}", found=found)
        try:
            used = check_revocation(chain, self.now, crl)
        except SnpError as error:
            raise self.failed("revocation", error) from None
        detail = "not listed by the CRL" if used else f"no CRL consulted (mode: {crl})"
        self.passed("revocation", detail, wanted=f"CRL mode {crl}", found=detail)
        return key

    def signature(self, report: Report, key: SigningKey) -> None:
        try:
            _check_signature(report, key)
        except SnpError as error:
            raise self.failed("signature", error) from None
        self.passed("signature", f"ECDSA P-384 by this {key.role}", wanted=f"by the {key.role}", found="valid")

    def bindings(self, report: Report, key: SigningKey, product: Product | None) -> None:
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("product", lambda: _check_product(report, key, product)),
            ("patch levels", lambda: _check_patch_levels(report, key)),
            ("chip", lambda: _check_chip(report, key, masked_allowed=self.expected.allow_masked_chip_id)),
        )
        for name, step in steps:
            try:
                found = step()
            except SnpError as error:
                raise self.failed(name, error) from None
            self.passed(name, found, wanted="certificate and report agree", found=found)
        if key.emulated:
            try:
                _check_emulated(report)
            except SnpError as error:
                raise self.failed("emulation", error) from None
            self.passed("emulation", "the report says that it is emulated", wanted="the marks of emulation")

    def appraisal(self, report: Report, key: SigningKey) -> None:
        subject = Subject(report, key.product, key.emulated, key.extensions.csp_id)
        for finding in appraise(subject, self.expected):
            detail = "; ".join(failure.message for failure in finding.failures) or "as required"
            self.checks.append(Check(finding.name, detail, finding.failures, finding.wanted, finding.found))

    def endorsement(self, report: Report, unverified_endorsement: bytes) -> None:
        endorser = self.expected.endorser
        if endorser is None:
            return
        from parma_snp import endorsement  # most relying parties name digests and need none of this

        try:
            found = endorsement.verify(unverified_endorsement, endorser, report.measurement, now=self.now)
        except SnpError as error:
            self.checks.append(Check("endorsement", error.message, (error,), str(endorser), error.found))
            return
        detail = f"SVN {found.svn}, signed {found.signed_at.isoformat()}"
        self.passed("endorsement", detail, wanted=str(endorser), found=detail)

    def verdict(self) -> Verdict:
        return Verdict(
            checks=tuple(self.checks),
            emulated=self.anchors.emulated,
            unchecked=self.expected.unchecked,
            report=self.report,
            authentic=self.authentic,
            product=self.key.product if self.key else None,
            role=self.key.role if self.key else None,
        )


def verify(
    report: bytes,
    chain: CertificateChain,
    *,
    now: datetime,
    expected: Expected,
    roots: TrustAnchors = AMD,
    product: Product | None = None,
    crl: CrlMode = "use-if-present",
    allow_emulated: bool = False,
    endorsement: bytes = b"",
) -> Verdict:
    """Judge ``report`` (1184 untrusted bytes) at the moment ``now`` (aware).

    Emulated evidence needs two words from the caller: ``roots`` made by :func:`parma_snp.anchors.emulated_root` and
    ``allow_emulated``; with AMD's roots ``allow_emulated`` changes nothing. ``product``, if given, is the only one
    accepted. ``endorsement`` (COSE_Sign1, untrusted) is looked at when ``expected`` names an endorser of the
    measurement. The order is that of a careful reader: no field is interpreted before the signature is good.
    Raises SnpError ``usage`` or ``emulated.not_allowed``.
    """
    if now.tzinfo is None:
        raise SnpError("usage", "the time of verification needs a time zone")
    if roots.emulated and not allow_emulated:
        raise SnpError(
            "emulated.not_allowed",
            "an emulated root was given without allowing emulated evidence",
            hint="emulated evidence protects nothing; say that you want it (--allow-emulated)",
        )
    run = _Verification(roots, now, expected)
    try:
        parsed = run.form(report)
        key = run.certificates(chain, crl)
        run.signature(parsed, key)
        run.bindings(parsed, key, product)
        run.authentic = True
        run.appraisal(parsed, key)
        run.endorsement(parsed, endorsement)
    except _Stop:
        pass
    return run.verdict()


def _check_signature(report: Report, key: SigningKey) -> None:
    if report.chip_key_masked or report.signing_key == SIGNING_KEY_NONE:
        raise SnpError("sig.absent", "the platform did not sign this report", hint="the host masks its chip key")
    role: Role = "VCEK" if report.signing_key == SIGNING_KEY_VCEK else "VLEK"
    if role != key.role:
        raise SnpError("bind.signing_key", "the certificate is of another kind of key", expected=role, found=key.role)
    r, s = report.signature
    if r == 0 and s == 0:
        raise SnpError("sig.absent", "the signature is zero")
    wrong = SnpError(
        "sig.invalid",
        f"the report is not signed by this {key.role}",
        hint="another chip's certificate, one for another TCB version, or a changed report",
    )
    if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
        raise wrong
    try:
        key.public_key.verify(encode_dss_signature(r, s), report.signed_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise wrong from None


def _check_product(report: Report, key: SigningKey, wanted: Product | None) -> str:
    cpu = report.cpuid
    if cpu is not None and (product := product_of(cpu.family, cpu.model)) != key.product:
        raise SnpError(
            "bind.product_fms",
            "the report is of another product than its certificates",
            expected=key.product,
            found=f"{product or 'unknown product'} (family {cpu.family:#x}, model {cpu.model:#x})",
        )
    if wanted not in (None, key.product):
        raise SnpError("cert.product", "the report is of another product", expected=wanted or "", found=key.product)
    return key.product if cpu is not None else f"{key.product} (by the certificates alone: report of version 2)"


def _check_patch_levels(report: Report, key: SigningKey) -> str:
    reported, certified = report.tcb("reported", key.product), key.extensions.tcb
    if reported != certified:
        raise SnpError(
            "bind.tcb",
            "the certificate is for another TCB version",
            expected=f"{reported} (REPORTED_TCB)",
            found=f"{certified} (certificate)",
            hint="fetch the certificate for REPORTED_TCB",
        )
    return str(reported)


def _check_chip(report: Report, key: SigningKey, *, masked_allowed: bool) -> str:
    certified = key.extensions.chip_id
    if certified is None:
        return "no chip id (VLEK)"
    if not any(report.chip_id) and masked_allowed:
        return "chip id masked, as permitted"
    if report.chip_id != certified:
        masked = not any(report.chip_id)
        raise SnpError(
            "bind.chip_id",
            "CHIP_ID is masked" if masked else "the certificate is of another chip",
            expected=certified.hex(),
            found=report.chip_id.hex(),
            hint="allow_masked_chip_id gives up the binding to a chip" if masked else "",
        )
    return report.chip_id.hex()


def _check_emulated(report: Report) -> None:
    """An emulated report says so in its ids and claims no firmware level at all."""
    ids = (report.chip_id, report.family_id, report.image_id)
    levels = [report.tcb_bytes(name) for name in ("current", "reported", "committed", "launch")]
    if ids != (oids.EMULATED_CHIP_ID, oids.EMULATED_ID, oids.EMULATED_ID) or any(any(level) for level in levels):
        raise SnpError("emulated.marker", "the emulated report does not say that it is emulated")
