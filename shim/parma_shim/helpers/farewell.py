# SPDX-License-Identifier: Apache-2.0
"""Helper: tell containers by their label that they have left their VM. Nobody waits for it (`parma_shim.farewell`).

Request: ``{"address", "namespace", "released": {container: label}}``. The argument is the moment at which they left, in
nanoseconds since 1970: what has come since is another VM's, and is left alone. The exit status is 1 when a container
that is still there was not told.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from parma_shim.api import containers_pb2 as pb
from parma_shim.helpers.labels import ATTESTATION, VERIFIED_AT, Labels

SECONDS: Final = 60.0
"""For all of it: long enough for a containerd that is being restarted, or a machine that has no time."""

_NANOSECONDS: Final = 10**9


def tell(request: Mapping[str, Any], left_ns: int, *, seconds: float = SECONDS) -> list[str]:
    """Returns what went wrong, a line each."""
    deadline = time.monotonic() + seconds
    failures = []
    with Labels(request["address"], request["namespace"]) as labels:
        for container_id, word in request["released"].items():
            failures += labels.set(
                container_id,
                {ATTESTATION: word},
                timeout=max(0.0, deadline - time.monotonic()),
                patient=True,
                unless=lambda container: belongs_to_later_vm(container, left_ns),
            )
    return failures


def belongs_to_later_vm(container: pb.Container, left_ns: int) -> bool:
    """Whether this is another container of that name, or its labels are of another VM, than the one that has ended."""
    if container.created_at.ToNanoseconds() > left_ns:
        return True
    try:
        verified = datetime.fromisoformat(container.labels[VERIFIED_AT])
    except ValueError:
        return False  # never verified
    # Verified in the very second that it left: no VM boots in less.
    return verified.replace(tzinfo=verified.tzinfo or UTC).timestamp() > left_ns // _NANOSECONDS


if __name__ == "__main__":
    sys.exit(1 if tell(json.load(sys.stdin), int(sys.argv[1])) else 0)
