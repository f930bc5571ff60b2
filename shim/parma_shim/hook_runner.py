# SPDX-License-Identifier: Apache-2.0
"""Runs hooks of a container on the host, by a helper process that can enter other namespaces and be cut off."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from parma_shim.helpers.call import call
from parma_shim.task.hooks import Hook

_GRACE: Final = 5.0  # for the helper to say which of them was late


def run_hooks(
    python: Path,
    hooks: Sequence[Hook],
    state: Mapping[str, Any],
    network_namespace: str,
    *,
    cgroups: Path,
    deadline: float,
) -> None:
    """Each is told ``state``, and runs in the bundle. Raises ParmaError for the first that fails.

    Args:
        network_namespace: a path; empty for the shim's own.
        cgroups: the file that names the VM's, which hooks are not to run in.
    """
    seconds = max(0.0, deadline - time.monotonic())
    request = {
        "network_namespace": network_namespace,
        "directory": state["bundle"],
        "state": state,
        "hooks": [hook._asdict() for hook in hooks],
        "seconds": seconds,
        "cgroups": str(cgroups),
    }
    call(python, "hooks", request, timeout=seconds + _GRACE)
