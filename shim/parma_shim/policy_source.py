# SPDX-License-Identifier: Apache-2.0
"""Where a container's execution policy comes from: two annotations, of which one may be given.

``io.parma.policy``       base64 of the Rego text, which may be gzipped first
``io.parma.policy-file``  a file in, or below, a directory that the host's configuration allows

The bytes are handed on as they are: their SHA-256 is what the guest is launched with. Whether they are a policy is for
the guest to say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from parma_policy.annotation import ANNOTATION, load_annotation
from parma_wire.errors import Denied, FailedPrecondition, Malformed, NotFound, Unavailable
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
        return _read(file, policy_dirs)
    return None


def require_policy(policy: bytes | None) -> bytes:
    """The policy; Denied when it is empty; for none, FailedPrecondition with one line that says how to make one."""
    if policy:
        return policy
    if policy is not None:
        raise Denied("the execution policy is empty")
    raise FailedPrecondition(
        "the task has no execution policy",
        hint="parma policy generate --image IMAGE --out policy.rego, "
        f"then --annotation {ANNOTATION}=$(base64 -w0 policy.rego)",
    )


def _read(name: str, policy_dirs: Sequence[Path]) -> bytes:
    """Open first, then ask where the opened file is: no link can be swapped in between."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise NotFound(f"the policy file {name} does not exist") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot open the policy file {name}: {error}") from error
    try:
        _require_allowed(name, fd, policy_dirs)
        return _limited(_contents(fd))
    except OSError as error:
        raise Unavailable(f"cannot read the policy file {name}: {error.strerror}") from error
    finally:
        os.close(fd)


def _require_allowed(name: str, fd: int, policy_dirs: Sequence[Path]) -> None:
    place = Path(f"/proc/self/fd/{fd}").readlink()
    if not any(place.is_relative_to(os.path.realpath(directory)) for directory in policy_dirs):
        allowed = ", ".join(map(str, policy_dirs)) or "none"
        raise Denied(f"the policy file {name} is not below one of policy_dirs", expected=allowed)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Unavailable(f"the policy file {name} is not a regular file")


def _contents(fd: int) -> bytes:
    data = b""
    while len(data) <= MAX_POLICY_BYTES and (piece := os.read(fd, MAX_POLICY_BYTES + 1 - len(data))):
        data += piece
    return data


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_POLICY_BYTES:
        raise _too_large()
    return data


def _too_large() -> Denied:
    return Denied("the policy is too large", expected=f"at most {MAX_POLICY_BYTES} bytes")
