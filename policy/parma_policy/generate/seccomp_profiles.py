# SPDX-License-Identifier: Apache-2.0
"""The SHA-256 by which a policy names a container's seccomp profile.

A profile from a file is the OCI runtime-spec's ``linux.seccomp`` object. The default profile of containerd depends on
its version and on the container's capabilities; ``data/seccomp.json`` has what running daemons were seen to send
(``tests/policy/generate/record_seccomp.py``), in parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from parma_policy import seccomp
from parma_policy.generate.documents import read_file
from parma_wire.errors import Malformed, NotFound, ParmaError


def names() -> tuple[str, ...]:
    """The recorded default profiles."""
    return tuple(_recorded())


def from_file(path: Path) -> str:
    """The SHA-256 of the profile in a file. Raises NotFound, and Malformed or Unsupported for what is none."""
    return of_text(read_file(path, "seccomp profile"), str(path))


def of_text(data: bytes, name: str) -> str:
    """The SHA-256 of a profile; ``name`` is for errors. Raises Malformed or Unsupported for what is none."""
    try:
        profile = seccomp.parse(data)
    except ParmaError as error:
        hint = "it must be the linux.seccomp object of the OCI runtime-spec, not Docker's template for it"
        raise type(error)(f"{name}: {error.message}", expected=error.expected, hint=hint) from None
    if profile is None:
        raise Malformed(f"{name} is empty", expected="the linux.seccomp object of the OCI runtime-spec")
    return profile.sha256()


def default(name: str, bounding: Sequence[str]) -> str:
    """The SHA-256 of the default profile for a container with these capabilities, in the order of its OCI spec.

    ``name`` is a recorded one, or a file (with a ``/``, or ending in ``.json``) with the profile as it is sent for
    these capabilities. Raises NotFound.
    """
    if "/" in name or name.endswith(".json"):
        return from_file(Path(name))
    parts = _recorded().get(name)
    if parts is None:
        raise NotFound(f"no recorded seccomp profile {name!r}", hint=f"there are {', '.join(names())}, or name a file")
    rules = list(parts["syscalls"])
    for capability in bounding:
        rules += parts["by_capability"].get(capability, ())
    if "CAP_SYS_ADMIN" not in bounding:
        rules += parts["without_sys_admin"]
    head = {key: value for key, value in parts.items() if key not in ("by_capability", "without_sys_admin")}
    profile = seccomp.parse(json.dumps({**head, "syscalls": rules}).encode())
    if profile is None:
        raise NotFound(f"recorded seccomp profile {name!r} is empty")
    return profile.sha256()


@cache
def _recorded() -> dict[str, Any]:
    text = resources.files("parma_policy.generate").joinpath("data/seccomp.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
