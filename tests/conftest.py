# SPDX-License-Identifier: Apache-2.0
"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import settings

# A slow example says something of the machine, which virtual machines of other tests share, and nothing of the code.
# Where a run decides about a change (.ci/run), examples are the same each time: it fails for what has changed.
settings.register_profile("parma", deadline=None, derandomize=bool(os.environ.get("PARMA_CI")))
settings.load_profile("parma")
