# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from parma_image import closure, contents, lz4, target
from parma_image.base import Base
from parma_image.cpio import Tree
from parma_image.rootfs import add_libraries
from parma_wire.errors import Malformed, NotFound
from tests.image import builders


def _write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_imports_inside_functions_count() -> None:
    assert closure.imported_names("def f():\n import json\n", "p") == {"json"}


def test_from_import_may_name_a_module_or_an_attribute() -> None:
    assert closure.imported_names("from a.b import c", "p") == {"a.b", "a.b.c"}


def test_relative_imports_are_resolved() -> None:
    assert closure.imported_names("from . import x\nfrom ..y import z", "p.q") == {"p.q", "p.q.x", "p.y", "p.y.z"}


def test_a_relative_import_above_the_package_is_refused() -> None:
    with pytest.raises(Malformed):
        closure.imported_names("from ... import x", "p.q")


def test_what_only_type_checkers_see_does_not_count() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import a\nelse:\n import b\n"
    assert closure.imported_names(source, "p") == {"typing", "typing.TYPE_CHECKING", "b"}


def test_only_reachable_modules_of_ours_are_taken(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "p/__init__.py": "",
            "p/start.py": "from p import used\nimport json",
            "p/used.py": "from q.deep import thing",
            "p/unused.py": "import cryptography",
            "q/__init__.py": "",
            "q/deep.py": "thing = 1",
        },
    )
    ours, others = closure.our_modules("p.start", tmp_path)
    assert sorted(ours) == ["p", "p.start", "p.used", "q", "q.deep"]
    assert others == {"json"}


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"p\.start"):
        closure.our_modules("p.start", tmp_path)


def _base(root: Path, libraries: dict[str, list[str]]) -> Base:
    for name, needed in libraries.items():
        path = root / contents.MULTIARCH / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(builders.library(needed))
    loader = root / contents.LOADER
    loader.parent.mkdir(parents=True, exist_ok=True)
    loader.write_bytes(builders.library([]))
    return Base(root, root / "wheels")


def test_libraries_of_libraries_are_added(tmp_path: Path) -> None:
    base = _base(tmp_path, {"liba.so.1": ["libb.so.2", "ld-linux-x86-64.so.2"], "libb.so.2": ["liba.so.1"]})
    tree = Tree()
    tree.file("usr/bin/x", builders.library(["liba.so.1"], f"/{contents.LOADER}"), executable=True)
    add_libraries(tree, base)
    assert f"{contents.MULTIARCH}/libb.so.2" in tree
    assert contents.LOADER in tree


def test_extension_modules_whose_libraries_only_the_building_machine_has_are_left_out(tmp_path: Path) -> None:
    base = _base(tmp_path, {"liba.so.1": []})
    folder = tmp_path / contents.STDLIB / "lib-dynload"
    folder.mkdir(parents=True)
    (folder / "_there.cpython-313-x86_64-linux-gnu.so").write_bytes(builders.library(["liba.so.1"]))
    (folder / "_absent.cpython-313-x86_64-linux-gnu.so").write_bytes(builders.library(["liba.so.1", "libc.so.6"]))
    assert closure.unusable_extensions(base) == ["_absent"]


def test_a_library_that_no_package_has_is_named_with_who_needs_it(tmp_path: Path) -> None:
    tree = Tree()
    tree.file("usr/bin/x", builders.library(["libmissing.so.9"]), executable=True)
    with pytest.raises(NotFound, match=r"usr/bin/x needs libmissing\.so\.9"):
        add_libraries(tree, _base(tmp_path, {}))


def test_a_link_out_of_the_unpacked_packages_is_not_followed(tmp_path: Path) -> None:
    base = _base(tmp_path / "root", {})
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root/link").symlink_to("../secret")
    with pytest.raises(NotFound):
        base.read("link")


def test_lz4_blocks_with_overlapping_matches_are_unpacked() -> None:
    # 1 literal "a", match of 4 + 15 + 3 bytes at distance 1; then 2 literals.
    block = bytes([0x1F, ord("a"), 1, 0, 3, 0x20]) + b"bc"
    frame = bytes.fromhex("02214c18") + struct.pack("<I", len(block)) + block
    assert lz4.decompress(frame) == b"a" * 23 + b"bc"


def test_a_module_that_puts_something_in_its_own_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "stand_in.py").write_text(
        "import sys, types\nmodule = types.ModuleType(__name__)\nmodule.__file__ = __file__\n"
        "sys.modules[__name__] = module\n"
    )
    command = [sys.executable, "-I", str(Path(target.__file__)), "closure", str(tmp_path), "none", "stand_in"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ("stand_in", str(tmp_path / "stand_in.py")) in ast.literal_eval(found)


@pytest.mark.parametrize("block", [b"", b"\x1fa\x02\x00\x00\x00", b"\x1fa\x00\x00\x00\x00", b"\x50abc", b"\xf0\xff"])
def test_broken_lz4_is_refused(block: bytes) -> None:
    with pytest.raises(Malformed):
        lz4.decompress(bytes.fromhex("02214c18") + struct.pack("<I", len(block)) + block)
