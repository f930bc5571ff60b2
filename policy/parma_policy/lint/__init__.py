# SPDX-License-Identifier: Apache-2.0
"""Looks for what a policy probably does not mean. See ``RULES`` for the list."""

from __future__ import annotations

from parma_policy.lint.finding import Finding, Severity
from parma_policy.lint.run import RULES, lint

__all__ = ["RULES", "Finding", "Severity", "lint"]
