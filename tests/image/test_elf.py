# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from parma_image import elf
from parma_wire.errors import Malformed
from tests.image import builders


def test_needed_libraries_and_loader_are_found() -> None:
    data = builders.library(["libc.so.6", "libm.so.6"], "/lib64/ld.so")
    assert elf.needs(data) == elf.Needs(("libc.so.6", "libm.so.6"), "/lib64/ld.so")


def test_a_library_without_dependencies_needs_nothing() -> None:
    assert elf.needs(builders.library([])) == elf.Needs((), "")


def test_the_running_interpreter_needs_the_c_library() -> None:
    needs = elf.needs(Path(sys.executable).resolve().read_bytes())
    assert "libc.so.6" in needs.libraries
    assert needs.interpreter.startswith("/lib64/ld-linux")


def test_modinfo_keeps_every_value_of_a_key() -> None:
    data = builders.module(["name=x", "depends=a,b", "softdep=pre: c", "softdep=post: d", "noise"])
    assert elf.modinfo(data) == {"name": ["x"], "depends": ["a,b"], "softdep": ["pre: c", "post: d"]}


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_truncated_files_are_refused(length: int) -> None:
    data = builders.library(["libc.so.6"])
    if length < len(data) - 1:
        with pytest.raises(Malformed):
            elf.needs(data[:length])


def test_other_machines_are_refused() -> None:
    data = bytearray(builders.library([]))
    data[18] = 183
    with pytest.raises(Malformed, match="x86-64"):
        elf.needs(bytes(data))
