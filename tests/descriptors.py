# SPDX-License-Identifier: Apache-2.0
"""What this process has open, for tests that nothing is left open: ``assert descriptors() <= before``.

Not a count: what an earlier test left to the collector may be closed in between.
"""

from __future__ import annotations

import gc
import os


def descriptors() -> set[str]:
    """This process's open descriptors and what they are."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the directory's own
    return found
