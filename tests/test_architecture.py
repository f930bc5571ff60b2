# SPDX-License-Identifier: Apache-2.0
"""The arrows between the rooms run one way (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ALLOWED: dict[str, set[str]] = {
    "ttrpc/ttrpc": set(),
    "cose/parma_cose": set(),
    "snp/parma_snp": {"parma_cose"},
    "wire/parma_wire": set(),
    "policy/parma_policy": {"parma_wire", "parma_cose"},
    "guest/parma_guest": {"ttrpc", "parma_policy", "parma_snp", "parma_wire", "parma_cose"},
    "guest/image/parma_image": {"parma_wire", "parma_snp", "parma_guest"},
    "shim/parma_shim": {"ttrpc", "parma_snp", "parma_policy", "parma_wire", "parma_image"},
}
OURS = {"ttrpc", "parma_cose", "parma_snp", "parma_wire", "parma_policy", "parma_guest", "parma_image", "parma_shim"}


def imports_of(path: Path) -> set[str]:
    """Every module imported by absolute name anywhere in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_room_imports_only_what_its_arrows_allow(folder: str) -> None:
    own = folder.rsplit("/", 1)[-1]
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports_of(path)
        if (top := name.split(".")[0]) in OURS and top != own and top not in ALLOWED[folder]
    }
    assert wrong == set()


def test_policy_uses_only_the_errors_of_wire() -> None:
    used = {
        name
        for path in (ROOT / "policy/parma_policy").rglob("*.py")
        for name in imports_of(path)
        if name.startswith("parma_wire")
    }
    assert {".".join(name.split(".")[:2]) for name in used} - {"parma_wire"} <= {
        "parma_wire.errors",
        "parma_wire.limits",
    }


def test_the_guest_report_parser_needs_no_cryptography() -> None:
    assert not any(name.startswith("cryptography") for name in imports_of(ROOT / "snp/parma_snp/report.py"))
