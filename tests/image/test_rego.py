# SPDX-License-Identifier: Apache-2.0
"""The Rego engine's build: pinned, the same bytes anywhere, and offering nothing but functions of their arguments."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from parma_image import elf, lock, rego
from parma_image.debian import DebianArchive
from tests.policy.rego_engine import PROGRAM, needs_engine

_ARCHIVE = Path(__file__).resolve().parents[2] / ".dev" / "archive"
_IMPURE = re.compile(
    r"(http|net|time|rand|uuid|opa|io\.jwt|crypto\.x509|providers|rego|graphql|yaml)\.|trace|crypto\.parse"
)


def test_the_toolchain_and_every_module_are_pinned() -> None:
    locked = lock.load(rego.LOCK_FILE)
    assert {package.name for package in locked.packages} == set(rego.TOOLCHAIN)
    required = re.findall(r"^\t(\S+ v\S+)", (rego.SOURCES / "go.mod").read_text(), re.MULTILINE)
    sums = (rego.SOURCES / "go.sum").read_text()
    assert "github.com/open-policy-agent/opa v1.19.0" in required
    assert [module for module in required if f"{module} h1:" not in sums and f"{module}/go.mod h1:" not in sums] == []


def test_no_function_reaches_out_or_looks_at_a_clock() -> None:
    lines = (rego.SOURCES / "builtins.txt").read_text().splitlines()
    offered = [line for line in lines if line and not line.startswith("#")]
    assert offered == sorted(set(offered))
    assert [name for name in offered if _IMPURE.match(name)] == []


@needs_engine
def test_the_program_needs_no_library() -> None:
    assert elf.needs(PROGRAM.read_bytes()) == elf.Needs((), "")


@needs_engine
@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_two_builds_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = rego.build_engine(DebianArchive(_ARCHIVE), relock_if_gone=True)
    (goroot,) = (_ARCHIVE / "rego-engine/go").glob("*/usr/lib/go-*")
    # Compiled anew, in another place, with another clock, umask and user name; only the modules' sources are shared.
    shutil.copytree(_ARCHIVE / "rego-engine/modules", tmp_path / "work/modules", copy_function=os.link)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("USER", "somebody")
    before = os.umask(0o077)
    try:
        rego.compile_engine(goroot, tmp_path / "work", tmp_path / "again/rego-engine")
    finally:
        os.umask(before)
    assert (tmp_path / "again/rego-engine").read_bytes() == built.program.read_bytes()
