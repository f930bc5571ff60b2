# SPDX-License-Identifier: Apache-2.0
"""What of attestation a container may reach: the member ``attestation`` of a policy's container, a list of these names.

A container object without the member is one that was written for the cloud service (`CLOUD_DEFAULT`); our generator
always writes the member. See docs/containers-attestation.md.
"""

from __future__ import annotations

from typing import Final

SECURITY_CONTEXT: Final = "UVM_SECURITY_CONTEXT_DIR"
"""A directory with the policy, the processor's certificates and the image's endorsement, named by this variable."""

DEVICE: Final = "/dev/sev-guest"
"""The device: reports over REPORT_DATA of the container's choice. Never derived keys."""

KEY_DERIVE: Final = "/key/derive"
"""Keys that only this container of this policy on this image and processor gets."""

KEY_RELEASE: Final = "/key/release"
ATTEST_RAW: Final = "/attest/raw"
ATTEST_COMBINED: Final = "/attest/combined"
AA_EVIDENCE: Final = "/aa/evidence"
AA_TOKEN: Final = "/aa/token"  # noqa: S105  # a path

NAMES: Final = (
    SECURITY_CONTEXT,
    DEVICE,
    ATTEST_RAW,
    ATTEST_COMBINED,
    KEY_RELEASE,
    KEY_DERIVE,
    AA_EVIDENCE,
    AA_TOKEN,
)
"""Every name that a policy may list. Those that begin with a slash, but for the device, are HTTP endpoints."""

REPORTS: Final = frozenset((DEVICE, ATTEST_RAW, ATTEST_COMBINED, AA_EVIDENCE))
"""What gives a container reports."""

FREE_REPORTS: Final = frozenset((DEVICE, AA_EVIDENCE))
"""What lets a container choose all 64 bytes of REPORT_DATA; the others put a hash into 32 of them."""

ENDORSED: Final = frozenset((SECURITY_CONTEXT, DEVICE, ATTEST_COMBINED, AA_EVIDENCE))
"""What passes on the host's endorsements: certificates, and the image's endorsement."""

CLOUD_DEFAULT: Final = frozenset((SECURITY_CONTEXT, DEVICE))
"""What the cloud service gives every workload container, whatever the policy says."""
