# SPDX-License-Identifier: Apache-2.0
"""The Rego engine for tests, where ``./dev test`` has built it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_policy.rego.link import ChildEngine
from parma_policy.rego.process import program

PROGRAM = Path(__file__).resolve().parents[2] / ".dev" / "rego-engine"

needs_engine = pytest.mark.skipif(
    not PROGRAM.exists(), reason="the Rego engine is not built; './dev test' builds it where it can"
)


def new_engine(*arguments: str) -> ChildEngine:
    """An engine; to be closed."""
    return ChildEngine(program(PROGRAM, *arguments))
