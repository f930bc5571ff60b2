# SPDX-License-Identifier: Apache-2.0
"""Certificate policies along a chain (RFC 5280, section 6.1), for a verifier that wants no policy in particular.

Then the policies matter in one case only: an authority demands that there be one (requireExplicitPolicy). The tree
of section 6.1.2 is kept as the set of policies on its lowest level, which is all that this question needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from parma_cose.certificates import extension, is_self_issued
from parma_cose.errors import CoseError

_ANY = x509.ObjectIdentifier("2.5.29.32.0")


def check_policies(chain: Sequence[x509.Certificate]) -> None:
    """``chain`` has the leaf first and the trust anchor last, which itself is not processed.

    Raises CoseError ``chain`` where a policy is demanded and none holds for the whole path, and for policy mappings
    where one is demanded: they are not supported.
    """
    path = list(reversed(chain[:-1]))
    if not any(_requires(certificate) for certificate in path):
        return
    explicit = inhibit_any = len(path) + 1
    valid = {_ANY}
    for index, certificate in enumerate(path):
        last = index == len(path) - 1
        own_step = 0 if is_self_issued(certificate) and not last else 1
        if any(found.oid == ExtensionOID.POLICY_MAPPINGS for found in certificate.extensions):
            raise CoseError("chain", "policy mappings are not supported where a policy is demanded")
        valid = _narrow(valid, certificate, any_counts=inhibit_any > 0 or not own_step)
        explicit, inhibit_any = max(0, explicit - own_step), max(0, inhibit_any - own_step)
        constraints = extension(certificate, x509.PolicyConstraints)
        if constraints is not None and constraints.require_explicit_policy is not None:
            explicit = min(explicit, constraints.require_explicit_policy)
        inhibited = extension(certificate, x509.InhibitAnyPolicy)
        if inhibited is not None:
            inhibit_any = min(inhibit_any, inhibited.skip_certs)
        if explicit == 0 and not valid:
            raise CoseError("chain", "an authority demands a certificate policy, and none holds for the chain")


def _requires(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.PolicyConstraints)
    return constraints is not None and constraints.require_explicit_policy is not None


def _narrow(
    valid: set[x509.ObjectIdentifier], certificate: x509.Certificate, *, any_counts: bool
) -> set[x509.ObjectIdentifier]:
    policies = extension(certificate, x509.CertificatePolicies)
    if policies is None:
        return set()
    named = {policy.policy_identifier for policy in policies}
    kept = named - {_ANY} if _ANY in valid else (named - {_ANY}) & valid
    return kept | valid if _ANY in named and any_counts else kept
