# SPDX-License-Identifier: Apache-2.0
"""What is mutated, and which tests must notice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]


class Area(NamedTuple):
    """``sources`` and ``tests`` are patterns below ``root``; tests that boot a machine are never run."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    root: Path = ROOT
    rsa_keys: bool = False
    """Whether tests make large keys."""

    def modules(self) -> list[Path]:
        """All files that are mutated."""
        return sorted({path for pattern in self.sources for path in self.root.glob(pattern) if path not in _TABLES})

    def test_files(self) -> list[str]:
        """Relative to ``root``, as pytest names them."""
        found = {path for pattern in self.tests for path in self.root.glob(pattern)}
        return sorted(str(path.relative_to(self.root)) for path in found)


_TABLES: Final = {ROOT / "policy/parma_policy/framework/codes.py"}
"""Texts for pages of the documentation; nothing that decides imports them."""

TIMED: Final = frozenset(
    {
        "test_a_verification_takes_less_than_ten_milliseconds",
        "test_R49_no_expression_takes_longer_than_the_text_is_long",
    }
)
"""Tests that measure time: they say nothing of a fault beside which something else runs."""

_VERIFIER: Final = (
    *("anchors", "appraise", "binding", "certificates", "certtable", "der", "endorsement", "evidence"),
    *("expected", "extensions", "permissive", "report", "strict_json", "verify"),
)
_POLICY_TESTS: Final = tuple(
    f"tests/policy/test_{name}.py"
    for name in (
        *("attestation", "compatibility", "container_mounts", "containers", "decide", "denial_messages"),
        *("denials_of_points", "env_rules", "explain", "fragment_text", "fragments", "mounts", "open_door"),
        *("permissive", "points", "properties", "provided", "reader", "reader_containers", "reader_parts"),
        *("reasons", "small_parts", "syntax"),
    )
)
"""Not those of tools, nor those that compare with a Rego engine for minutes."""

_DISPATCH: Final = ("points", "service", "requests", "decisions", "enforcer")

AREAS: Final[Mapping[str, Area]] = MappingProxyType(
    {
        "framework": Area(("policy/parma_policy/framework/*.py",), _POLICY_TESTS),
        "reader": Area(("policy/parma_policy/reader/*.py",), _POLICY_TESTS),
        "verifier": Area(
            tuple(f"snp/parma_snp/{name}.py" for name in _VERIFIER), ("tests/snp/test_*.py",), rsa_keys=True
        ),
        "dispatch": Area(
            tuple(f"guest/parma_guest/{name}.py" for name in _DISPATCH),
            ("tests/guest/test_[!v]*.py", "tests/hostile/test_wire_*.py"),
        ),
    }
)
