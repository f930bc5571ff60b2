# SPDX-License-Identifier: Apache-2.0
"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A slow example says something of the machine, which virtual machines of other tests share, and nothing of the code.
settings.register_profile("parma", deadline=None)
settings.load_profile("parma")
