# SPDX-License-Identifier: Apache-2.0
"""The attested-policy status of a VM, as shown to operators: a JSON document, labels, a few lines of text.

It says who verified. When that is the shim, the host speaks about itself: useful to an operator, worthless to a relying
party. So the status carries the evidence, for anyone to verify again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from parma_snp.errors import SnpError
from parma_snp.evidence import MAX_EVIDENCE_SIZE, TEES, Evidence, Tee, from_json
from parma_snp.permissive import is_permissive
from parma_snp.strict_json import Object

if TYPE_CHECKING:
    from parma_snp.verify import Verdict

VerdictWord = Literal["attested", "permissive", "failed", "unattested"]
VERDICTS: Final[tuple[VerdictWord, ...]] = ("attested", "permissive", "failed", "unattested")
FORMAT: Final = "parma-attestation-status/1"
_CODE: Final = "status.format"
_KEYS: Final = (
    "format",
    "verdict",
    "tee",
    "emulated",
    "permissive",
    "verified_by",
    "verified_at",
    "policy_sha256",
    "measurement",
    "report_id",
    "unchecked",
    "failures",
    "evidence",
)


@dataclass(frozen=True)
class Status:
    """The status document. Hashes are lower-case hex; ``measurement`` is empty while unknown.

    ``attested`` and ``failed`` are about verified evidence; ``unattested`` says that there is none (tee ``none``).
    ``permissive``: the evidence verifies, but of a policy that forbids nothing.
    """

    verdict: VerdictWord
    tee: Tee
    verified_by: str
    verified_at: str
    policy_sha256: str
    measurement: str = ""
    report_id: str = ""
    """REPORT_ID of the evidence: which instance of the VM this is. One that was started again has another."""
    unchecked: tuple[str, ...] = ()
    failures: tuple[SnpError, ...] = ()
    evidence: Evidence | None = None
    permissive: bool = False
    """The policy forbids nothing, whatever the verdict."""

    @property
    def emulated(self) -> bool:
        return self.tee == "emulated"

    def to_json(self) -> dict[str, object]:
        """The document as a JSON object."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "tee": self.tee,
            "emulated": self.emulated,
            "permissive": self.permissive,
            "verified_by": self.verified_by,
            "verified_at": self.verified_at,
            "policy_sha256": self.policy_sha256,
            "measurement": self.measurement,
            "report_id": self.report_id,
            "unchecked": list(self.unchecked),
            "failures": [failure.to_json() for failure in self.failures],
            "evidence": self.evidence.to_json() if self.evidence else None,
        }

    def dumps(self) -> str:
        """The document as text."""
        return json.dumps(self.to_json(), indent=1) + "\n"


def from_verdict(verdict: Verdict, evidence: Evidence, *, now: datetime, verified_by: str = "shim") -> Status:
    """The status after a verification: ``attested`` if it was accepted, else ``failed`` with the reasons."""
    permissive = is_permissive(evidence.policy)
    accepted: VerdictWord = "permissive" if permissive else "attested"
    return Status(
        verdict=accepted if verdict.accepted else "failed",
        permissive=permissive,
        tee=evidence.tee,
        verified_by=verified_by,
        verified_at=now.isoformat(timespec="seconds"),
        policy_sha256=evidence.policy_sha256.hex(),
        measurement=verdict.report.measurement.hex() if verdict.report else "",
        report_id=verdict.report.report_id.hex() if verdict.report else "",
        unchecked=verdict.unchecked,
        failures=verdict.failures,
        evidence=evidence,
    )


def failed(
    tee: Tee,
    policy_sha256: bytes,
    failures: Sequence[SnpError],
    *,
    now: datetime,
    verified_by: str = "shim",
    evidence: Evidence | None = None,
) -> Status:
    """The status when there is no verdict because the evidence could not even be had or read."""
    return Status(
        verdict="failed",
        tee=tee,
        verified_by=verified_by,
        verified_at=now.isoformat(timespec="seconds"),
        policy_sha256=policy_sha256.hex(),
        failures=tuple(failures),
        evidence=evidence,
        permissive=evidence is not None and is_permissive(evidence.policy),
    )


def unattested(policy_sha256: bytes, *, now: datetime, verified_by: str = "shim", permissive: bool = False) -> Status:
    """The status of a VM without a secure processor (tee ``none``)."""
    return Status(
        verdict="unattested",
        tee="none",
        verified_by=verified_by,
        verified_at=now.isoformat(timespec="seconds"),
        policy_sha256=policy_sha256.hex(),
        permissive=permissive,
    )


def _failure(document: Object) -> SnpError:
    document.require_keys(("code", "message", "expected", "found", "hint"))
    return SnpError(
        document.text("code"),
        document.text("message"),
        expected=document.text("expected"),
        found=document.text("found"),
        hint=document.text("hint"),
    )


def parse(data: bytes) -> Status:
    """Read a status document. Raises SnpError ``status.format`` or ``evidence.format``."""
    document = Object.parse(data, code=_CODE, limit=2 * MAX_EVIDENCE_SIZE)
    document.require_keys(_KEYS)
    document.one_of("format", (FORMAT,))
    verdict, tee = document.one_of("verdict", VERDICTS), document.one_of("tee", TEES)
    evidence = document.fields["evidence"]
    if evidence is not None and not isinstance(evidence, dict):
        raise SnpError(_CODE, "evidence is neither an object nor null")
    status = Status(
        verdict=next(word for word in VERDICTS if word == verdict),
        tee=next(word for word in TEES if word == tee),
        verified_by=document.text("verified_by"),
        verified_at=document.text("verified_at"),
        policy_sha256=document.text("policy_sha256"),
        measurement=document.text("measurement"),
        report_id=document.text("report_id"),
        unchecked=document.texts("unchecked"),
        failures=tuple(_failure(item) for item in document.objects("failures")),
        evidence=from_json(evidence) if evidence is not None else None,
        permissive=document.boolean("permissive"),
    )
    if document.boolean("emulated") != status.emulated:
        raise SnpError(_CODE, "emulated and tee contradict each other")
    return status


_MEANING: Final[Mapping[VerdictWord, str]] = {
    "attested": "the evidence verifies",
    "permissive": "the evidence verifies, but the policy forbids nothing",
    "failed": "the evidence does not verify",
    "unattested": "there is no secure processor, and so no evidence",
}


def render(status: Status) -> str:
    """The status for people: a few aligned lines, the verdict first."""
    verdict = f"{status.verdict} - {_MEANING[status.verdict]}"
    lines = [("Verdict", verdict)]
    if status.emulated:
        lines.append(("Emulated", "YES - an emulated secure processor protects nothing from the host"))
    if status.permissive:
        lines.append(("Permissive", "YES - the policy forbids nothing; what it would have denied is only recorded"))
    who = " (the host itself; a relying party verifies again)" if status.verified_by == "shim" else ""
    lines += [
        ("TEE", status.tee),
        ("Verified by", f"{status.verified_by}{who}"),
        ("Verified at", status.verified_at),
        ("Policy SHA-256", status.policy_sha256),
        ("Measurement", status.measurement or "-"),
        ("Instance", status.report_id or "-"),
    ]
    if status.unchecked:
        lines.append(("Not checked", ", ".join(status.unchecked)))
    lines += [("Failure", str(failure)) for failure in status.failures]
    return "".join(f"{name + ':':<16}{value}\n" for name, value in lines)
