# SPDX-License-Identifier: Apache-2.0
"""From a denial that a user saw to what would have to change in the policy: see ``run.advise``."""

from __future__ import annotations

from parma_policy.advice.run import Advice, advise

__all__ = ["Advice", "advise"]
