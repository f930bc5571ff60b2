# SPDX-License-Identifier: Apache-2.0
"""``parma verify --explain``: why each check is made and where it is written, beside what was wanted and found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from parma_snp.verify import Check, Verdict

_ABI: Final = "AMD 56860 (SEV-SNP firmware ABI)"
_VCEK: Final = "AMD 57230 (VCEK certificates and KDS)"


class Reason(NamedTuple):
    """``why`` a check is made, and the ``source`` that defines it."""

    why: str
    source: str


REASONS: Final[Mapping[str, Reason]] = MappingProxyType(
    {
        "form": Reason(
            "Only bytes that are exactly one report are looked at; reserved fields leave no room for smuggled data.",
            f"{_ABI}, table ATTESTATION_REPORT",
        ),
        "certificates": Reason(
            "Anyone can sign; only a chain that ends in one of AMD's pinned roots makes the signer an AMD processor.",
            f"{_VCEK}, chapters on the ARK, ASK and VCEK; RFC 5280, section 6",
        ),
        "revocation": Reason(
            "AMD can revoke an intermediate. The CRL does not list single processors.", "RFC 5280, section 6.3"
        ),
        "signature": Reason(
            "The key must have signed the first 0x2A0 bytes as they were received.", f"{_ABI}, table ATTESTATION_REPORT"
        ),
        "product": Reason(
            "Processor generations have different chains and TCB layouts; report and certificate must agree on it.",
            f"{_VCEK}, table of certificate extensions (productName)",
        ),
        "patch levels": Reason(
            "A VCEK exists for each firmware level. Equality with REPORTED_TCB shows that the level is not a claim.",
            f"{_VCEK}, table of certificate extensions (SPL); {_ABI}, TCB_VERSION",
        ),
        "chip": Reason(
            "The certificate's HWID must be the report's CHIP_ID, or another processor's evidence could be presented.",
            f"{_VCEK}, table of certificate extensions (HWID)",
        ),
        "emulation": Reason(
            "An emulated processor proves nothing; it must be recognisable as such everywhere.",
            "Parma, docs/attestation.md",
        ),
        "freshness": Reason(
            "A report carries no time. Only REPORT_DATA made from your own random nonce shows that it is fresh.",
            f"{_ABI}, REPORT_DATA; Parma: SHA-512 over a label and the nonce",
        ),
        "policy": Reason(
            "HOST_DATA is fixed at launch. The enforcer accepts no policy but the one with this SHA-256.",
            f"{_ABI}, HOST_DATA",
        ),
        "measurement": Reason(
            "The launch digest says which firmware, kernel, initrd, command line and vCPUs were started: without it, "
            "anything could hold the policy without enforcing it.",
            f"{_ABI}, Launch Digest",
        ),
        "endorsement": Reason(
            "Instead of a digest, an issuer's signature over the measurement, with a version that only goes up.",
            "RFC 9052 (COSE_Sign1); did:x509; SCITT hash envelope",
        ),
        "identifiers": Reason(
            "IMAGE_ID and FAMILY_ID come from the launcher's ID block and mean nothing without a pinned ID key; "
            "REPORT_ID is unique to this start of this VM.",
            f"{_ABI}, ID block",
        ),
        "privilege level": Reason(
            "The enforcer runs at VMPL 0. 0xFFFFFFFF means that the host asked for the report by itself.",
            f"{_ABI}, MSG_REPORT_REQ",
        ),
        "guest policy": Reason(
            "DEBUG lets the host read the memory, a migration agent may move it elsewhere.",
            f"{_ABI}, table Guest Policy",
        ),
        "minimum TCB": Reason(
            "Old firmware has known holes through which its keys and guests leak.",
            "AMD security bulletins, AMD-SB-3019",
        ),
        "committed firmware": Reason(
            "Firmware that is not committed can be rolled back to an older one while the VM runs.",
            f"{_ABI}, SNP_COMMIT",
        ),
        "platform": Reason("Properties of the machine: SMT, ECC, alias check (BadRAM), ...", f"{_ABI}, PLATFORM_INFO"),
        "mitigations": Reason("Which mitigations were active at launch.", f"{_ABI}, LAUNCH_MIT_VECTOR"),
        "report version": Reason("Older reports lack fields.", f"{_ABI}, VERSION"),
        "image owner": Reason(
            "Keys and version of the ID block, where the image's owner signed one.", f"{_ABI}, ID block and ID auth"
        ),
        "cloud provider": Reason(
            "All machines of a provider share its VLEK, which it loads: accept it only from whom you trust with that.",
            f"{_VCEK}, VLEK, CSP_ID",
        ),
        "claims": Reason(
            "What the evidence file says beside the report is the host's word; the report must confirm it.",
            "Parma, docs/attestation.md",
        ),
        "strictness": Reason(
            "A permissive policy only records what it would refuse; no statement about the containers follows from it.",
            "Parma, docs/attestation.md",
        ),
    }
)
"""By the name of the check."""


def render(verdict: Verdict) -> str:
    """Every check of a verdict with its reason, for people."""
    return "\n".join(line for number, check in enumerate(verdict.checks, 1) for line in _lines(number, check))


def _lines(number: int, check: Check) -> list[str]:
    reason = REASONS[check.name]
    lines = ["", f"{number}. {check.name}: {'FAILED' if check.failures else 'passed'}"]
    lines += textwrap.wrap(reason.why, 100, initial_indent="   ", subsequent_indent="   ")
    for label, text in (("wanted", check.wanted), ("found", check.found), ("source", reason.source)):
        if text:
            lines += textwrap.wrap(
                f"{label + ':':<8}{text}", 116, initial_indent="   ", subsequent_indent=" " * 11, break_long_words=False
            )
    return lines + [f"   failure: {failure}" for failure in check.failures]
