# SPDX-License-Identifier: Apache-2.0
"""Policies with rules of their own, for guest images that have a Rego engine (``docs/rego-variant.md``).

The strict reader refuses such a policy. Here an engine, a child process behind the ``Engine`` interface, evaluates
the policy's own rules; whatever those leave to the framework is decided by the same functions as ever, and
``data.framework`` is what they say. Nothing here is imported where no engine is.
"""

from __future__ import annotations

from parma_policy.rego.decide import RegoPolicy, RegoState
from parma_policy.rego.engine import Engine, EngineFailed, EvaluationFailed
from parma_policy.rego.policy import load

__all__ = ["Engine", "EngineFailed", "EvaluationFailed", "RegoPolicy", "RegoState", "load"]
