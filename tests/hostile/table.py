# SPDX-License-Identifier: Apache-2.0
"""The table of attacks (``rows.toml``) as typed values, and test ids as what they stand for."""

from __future__ import annotations

import ast
import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
ROWS: Final = Path(__file__).with_name("rows.toml")
COUNT: Final = 80

SECTIONS: Final = {
    "paths": "Paths, symbolic links, mounts",
    "layers": "Layers, block devices, file systems",
    "processes": "OCI specification and processes",
    "policy": "Policy",
    "streams": "Streams, logs, debug surfaces",
    "transport": "Transport and machine",
    "attestation": "Attestation and identity",
    "reliability": "Host-side reliability",
}


@dataclass(frozen=True)
class Row:
    """One attack. Exactly one of ``tests`` and ``not_applicable`` is there."""

    id: str
    section: str
    after: str
    """Where others met it: advisories, fixes, or what it is about."""
    attack: str
    outcome: str
    tests: tuple[str, ...] = ()
    not_applicable: str = ""
    """Why there is nothing to attack."""
    rest: str = ""
    """What is left, and has to be known."""


def load() -> list[Row]:
    """All rows, in their order. Raises `TypeError` for unknown members."""
    document = tomllib.loads(ROWS.read_text())
    return [_row(entry) for entry in document["row"]]


def _row(entry: dict[str, Any]) -> Row:
    return Row(**{**entry, "tests": tuple(entry.get("tests", ()))})


@functools.cache
def tests_in(file: str) -> frozenset[str]:
    """Names of the test functions of a module of the repository; empty when there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.parse(path.read_text()).body
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def exists(test_id: str) -> bool:
    """Whether ``tests/FILE.py::test_NAME`` is a test."""
    file, _, name = test_id.partition("::")
    return name in tests_in(file)
