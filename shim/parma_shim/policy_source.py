# SPDX-License-Identifier: Apache-2.0
"""Where a container's execution policy comes from: two annotations, of which one may be given.

``io.parma.policy``       base64 of the Rego text, which may be gzipped first
``io.parma.policy-file``  a file in, or below, a directory that the host's configuration allows

The bytes are handed on as they are: their SHA-256 is what the guest is launched with. Whether they are a policy is for
the guest to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from parma_policy.annotation import ANNOTATION, load_annotation
from parma_shim.host_files import Place
from parma_wire.errors import Denied, FailedPrecondition, Malformed
from parma_wire.limits import MAX_POLICY_BYTES

FILE_ANNOTATION: Final = "io.parma.policy-file"


def policy_from_annotations(annotations: Mapping[str, str], policy_dirs: Sequence[Path]) -> bytes | None:
    """The policy's bytes, or None when neither annotation is given.

    Raises Malformed for annotations that make no sense, Denied for a policy that is too large or a file outside
    ``policy_dirs``, NotFound or Unavailable for one that cannot be read.
    """
    inline = annotations.get(ANNOTATION)
    file = annotations.get(FILE_ANNOTATION)
    if inline is not None and file is not None:
        raise Malformed(f"both {ANNOTATION} and {FILE_ANNOTATION} are given", expected="one of them")
    if inline is not None:
        return load_annotation(inline)
    if file is not None:
        return Place("policy file", "policy_dirs", policy_dirs, MAX_POLICY_BYTES).read(file)
    return None


def require_policy(policy: bytes | None, tee: str) -> bytes:
    """The policy that the VM is launched for. Where ``tee`` is ``none``, a missing one is the empty one: the open door.

    Raises otherwise Denied for an empty one, and for none FailedPrecondition with one line that says how to make one.
    """
    if policy or tee == "none":
        return policy or b""
    if policy is not None:
        raise Denied("the execution policy is empty")
    raise FailedPrecondition(
        "the task has no execution policy",
        hint="parma policy generate --image IMAGE --out policy.rego, "
        f"then --annotation {ANNOTATION}=$(base64 -w0 policy.rego)",
    )
