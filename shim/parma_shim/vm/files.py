# SPDX-License-Identifier: Apache-2.0
"""Names of the files in a VM's directory that more than one module knows."""

from typing import Final

STATUS: Final = "status.json"
"""The attested-policy status (``parma_snp.status``)."""

GROUP: Final = "group.json"
"""What belongs to the status but is no evidence: containers, boot times, shape."""

POLICY: Final = "policy.rego"
"""The execution policy, exact bytes: part of the evidence."""
