# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parma_image import manifest
from parma_image.cpio import Tree
from parma_wire.errors import Malformed, NotFound

_ZERO = "0" * 64


def _manifest() -> manifest.Manifest:
    tree = Tree()
    tree.file("init", b"#!", executable=True)
    tree.symlink("bin", "usr/bin")
    artefact = manifest.Artefact("vmlinuz", _ZERO, 1)
    return manifest.Manifest(
        "0.1",
        "default",
        artefact,
        artefact,
        artefact,
        {"snp": "quiet"},
        manifest.list_files(tree),
        (manifest.Package("crun", "1.21-1", _ZERO),),
        (manifest.Measurement("snp", "EPYC-v4", 1, "0" * 96),),
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(_manifest().dump())
    assert manifest.load(tmp_path) == _manifest()


def test_files_are_listed_with_mode_and_hash() -> None:
    assert [(entry.path, entry.mode, entry.size) for entry in _manifest().files] == [
        ("bin", "120777", 7),
        ("init", "100755", 2),
    ]


def _set(*keys: str | int) -> Callable[[Any, Any], None]:
    def change(document: Any, value: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("format",), 2),
        (("format",), "1"),
        (("surplus",), 1),
        (("version",), 1),
        (("kernel", "surplus"), 1),
        (("kernel", "size"), "1"),
        (("kernel", "size"), True),
        (("kernel", "sha256"), "0" * 63),
        (("kernel", "sha256"), "G" * 64),
        (("kernel",), None),
        (("cmdline", "snp"), 1),
        (("cmdline",), []),
        (("files",), {}),
        (("files", 0), []),
        (("files", 0, "mode"), 33188),
        (("measurements", 0, "measurement"), "0" * 64),
        (("measurements", 0, "vcpus"), "1"),
    ],
)
def test_anything_missing_unknown_or_of_another_type_is_refused(keys: tuple[str | int, ...], value: object) -> None:
    document = json.loads(_manifest().dump())
    manifest.parse(copy.deepcopy(document))
    _set(*keys)(document, value)
    with pytest.raises(Malformed):
        manifest.parse(document)


@pytest.mark.parametrize("key", ["format", "version", "kernel", "cmdline", "files", "packages", "measurements"])
def test_every_key_is_needed(key: str) -> None:
    document = json.loads(_manifest().dump())
    del document[key]
    with pytest.raises(Malformed):
        manifest.parse(document)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "format": 1}', "null"])
def test_a_file_that_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Malformed, match=r"manifest\.json"):
        manifest.load(tmp_path)


def test_a_folder_without_an_image_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="parma image build"):
        manifest.load(tmp_path)
