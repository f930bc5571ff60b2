# SPDX-License-Identifier: Apache-2.0
"""The policy annotation: base64, perhaps gzip; any text is a policy's bytes or `Malformed`."""

from __future__ import annotations

import gzip

from parma_policy.annotation import load_annotation, to_annotation
from parma_wire.errors import Denied, Malformed
from parma_wire.limits import MAX_POLICY_BYTES

SEEDS = [
    to_annotation(b"package policy\n" * 20).encode(),
    to_annotation(b"package policy\n", compress=False).encode(),
    to_annotation(gzip.compress(b"bomb" * 1000), compress=False).encode(),
    b"!",
]


def target(data: bytes) -> None:
    """What is accepted stays within the limit and makes the journey again."""
    try:
        policy = load_annotation(data.decode("utf-8", errors="surrogateescape"))
    except (Malformed, Denied):
        return
    assert len(policy) <= MAX_POLICY_BYTES
    if not policy.startswith(b"\x1f\x8b"):
        assert load_annotation(to_annotation(policy)) == policy
