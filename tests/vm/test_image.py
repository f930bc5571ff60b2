# SPDX-License-Identifier: Apache-2.0
"""The guest image's manifest, and the check of its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from parma_shim.helpers import image as helper
from parma_shim.vm.image import load_image, record_verified, unverified_files
from parma_wire.errors import Malformed, NotFound, Unavailable
from tests.vm.support import write_image


def test_a_good_image_is_read(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    assert image.version == "1.2.3"
    assert [file.path.name for file in image.files] == ["vmlinuz", "initrd.img", "OVMF.amdsev.fd"]
    assert image.command_line("emulated") == "console=ttyS0 parma.tee=emulated"
    assert image.measurement("emulated", 1) == b"\xab" * 48
    assert image.shapes("emulated") == (1,)
    assert image.shapes("none") == ()


def test_no_image_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="parma image build"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"kernel": None},
        {"kernel": {"file": "../vmlinuz", "sha256": "00" * 32, "size": 1}},
        {"kernel": {"file": "vmlinuz", "sha256": "00", "size": 1}},
        {"kernel": {"file": "vmlinuz", "sha256": "00" * 32}},
        {"cmdline": []},
        {"measurements": [{"tee": "snp", "vcpus": 1, "measurement": "00"}]},
        {"measurements": 5},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="manifest"):
        write_image(tmp_path, **changes)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_manifest_that_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Malformed):
        load_image(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_image(tmp_path)
    (tmp_path / "initrd.img").unlink()
    with pytest.raises(NotFound, match=r"initrd\.img"):
        load_image(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write_image(tmp_path)
    os.truncate(tmp_path / "vmlinuz", 5)
    with pytest.raises(Unavailable, match=r"vmlinuz does not match.*5 bytes"):
        load_image(tmp_path)


def test_an_unknown_shape_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"3 vCPUs.*expected one of 1"):
        write_image(tmp_path).measurement("emulated", 3)


def check(directory: Path, cache: Path) -> None:
    helper.verify({"directory": str(directory), "cache": str(cache)})


def test_files_are_hashed_once_and_again_after_a_change(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image")
    cache = tmp_path / "cache"
    assert len(unverified_files(image, cache)) == 3
    check(tmp_path / "image", cache)
    assert unverified_files(image, cache) == []
    os.utime(image.kernel.path, ns=(1, 1))
    assert unverified_files(image, cache) == [image.kernel]
    check(tmp_path / "image", cache)
    assert unverified_files(image, cache) == []


def test_another_content_of_the_same_size_is_found(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image")
    data = image.initrd.path.read_bytes()
    image.initrd.path.write_bytes(data[:-1] + b"X")
    with pytest.raises(Unavailable, match=r"initrd\.img does not match.*parma image build"):
        check(tmp_path / "image", tmp_path / "cache")
    assert image.initrd in unverified_files(image, tmp_path / "cache")


def test_a_manifest_with_another_hash_asks_for_a_new_check(tmp_path: Path) -> None:
    image = write_image(tmp_path)
    record_verified(list(image.files), tmp_path / "cache")
    other = image._replace(kernel=image.kernel._replace(sha256="11" * 32))
    assert unverified_files(other, tmp_path / "cache") == [other.kernel]
