# SPDX-License-Identifier: Apache-2.0
"""The environment of helper processes (tier 0: ``delete`` starts one as well)."""

import posix
import sys

from parma_shim.vm.cleanup import SHIM_MARKER

_PATH = "/bin:/usr/bin"


def helper_environment() -> dict[str, str]:
    """The daemon's own module path, so that a helper finds what the daemon would, and its mark."""
    return {
        "PATH": _PATH,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": ":".join([entry for entry in sys.path if entry.startswith("/")]),
        "PYTHONWARNINGS": "ignore",
        SHIM_MARKER: str(posix.getpid()),
    }
