# SPDX-License-Identifier: Apache-2.0
"""Whether a policy says of itself that it forbids nothing.

Such policies are for learning what a workload needs. A policy has exactly one way to say so, a line of its own, which
its reader insists on: so whoever has the text finds it, without a reader. A text that has the line but does not mean
it, in a string of several lines, is taken for permissive: the safe mistake.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(rb"^permissive := true\r?$", re.MULTILINE)


def is_permissive(policy: bytes) -> bool:
    """Whether the policy's text has the line ``permissive := true``."""
    return _LINE.search(policy) is not None
