# SPDX-License-Identifier: Apache-2.0
"""Recorded conversions, and what other programs say of the images."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from parma_policy.layers import replay
from parma_policy.layers.convert import LayerImage, layer_to_image

from . import make_vectors

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "vectors" / "layers"
PREFIX = ROOT / ".dev" / "prefix"

# e2fsck -n objects to what the reference does on purpose: bits past the inode bitmap's end everywhere; times before
# 1970, attributes without a prefix in a block, and symbolic links longer than a block in these cases.
TOLERATED = ("Padding at end of inode bitmap is not set", "Pass ", "Fix? no", "e2fsck ", "WARNING", "files (")
OBJECTIONABLE = frozenset(
    ("times", "base-256", "long-link-5000", "xattr-empty-name", *(f"xattr-sort-{n}" for n in (13, 30, 60, 150)))
)


def program(name: str) -> str:
    """A host program, from the private prefix or the system; skips the test where there is none."""
    found = shutil.which(name, path=f"{PREFIX}/bin:/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def converted(case: replay.Case) -> Iterator[tuple[Path, LayerImage]]:
    options = case.expect["options"]
    with tempfile.NamedTemporaryFile(prefix="parma-layer-") as out, case.tar() as tar:
        result = layer_to_image(
            tar,
            cast("BinaryIO", out),
            maximum_disk_size=options["max_disk_size"],
            convert_whiteouts=options["convert_whiteout"],
        )
        out.flush()
        yield Path(out.name), result


def own_cases() -> list[replay.Case]:
    return replay.cases(make_vectors.VECTORS)


def valid_cases() -> list[replay.Case]:
    return [case for case in own_cases() if "error" not in case.expect]


@pytest.mark.parametrize("case", own_cases(), ids=lambda case: case.name)
def test_own_case_gives_the_recorded_bytes(case: replay.Case) -> None:
    assert case.run() == []


def test_golden_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    for golden in make_vectors.goldens():
        if golden.tar is not None:
            make_vectors.write(golden, tmp_path)
    for path in tmp_path.rglob("*.json"):
        assert path.read_text() == (make_vectors.VECTORS / path.relative_to(tmp_path)).read_text()
    names = {golden.name for golden in make_vectors.goldens()}
    assert {case.name for case in own_cases()} == names


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference vectors are not beside this checkout")
def test_every_reference_case_is_bit_identical() -> None:
    lines: list[str] = []
    passed, failed = replay.replay(SHARED, report=lines.append)
    assert (failed, lines) == (0, [])
    assert passed > 100


@pytest.mark.parametrize("case", valid_cases(), ids=lambda case: case.name)
def test_veritysetup_computes_the_same_root_and_accepts_the_image(case: replay.Case, tmp_path: Path) -> None:
    veritysetup = program("veritysetup")
    with converted(case) as (image, result):
        verify: list[str | Path] = [
            veritysetup,
            "verify",
            image,
            image,
            result.root_hash,
            f"--hash-offset={result.ext4_size}",
        ]
        subprocess.run(verify, check=True, capture_output=True)
        # The same root comes out of the data alone, with our salt and its defaults otherwise.
        blocks = f"--data-blocks={result.data_blocks}"
        made = subprocess.run(
            [veritysetup, "format", f"--salt={'0' * 64}", blocks, image, tmp_path / "hash"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert result.root_hash in made.stdout


@pytest.mark.parametrize("case", valid_cases(), ids=lambda case: case.name)
def test_e2fsck_finds_nothing_but_what_is_meant(case: replay.Case) -> None:
    e2fsck = program("e2fsck")
    if case.name in OBJECTIONABLE:
        pytest.skip("holds what the reference writes and e2fsck objects to")
    with converted(case) as (image, _):
        said = subprocess.run([e2fsck, "-fn", image], capture_output=True, text=True, check=False).stdout
    odd = [line for line in said.splitlines() if line.strip() and not any(text in line for text in TOLERATED)]
    assert odd == []


def test_debugfs_reads_the_files_back(tmp_path: Path) -> None:
    debugfs = program("debugfs")
    case = next(case for case in own_cases() if case.name == "sparse-1.0")
    with converted(case) as (image, _):
        subprocess.run([debugfs, "-R", f"dump dir/name {tmp_path}/out", image], check=True, capture_output=True)
    expected = bytes(4096) + b"0123456789"
    assert (tmp_path / "out").read_bytes() == expected.ljust(20000, b"\0")


def test_a_failure_is_one_line_and_counted(tmp_path: Path) -> None:
    source = make_vectors.VECTORS / "v7"
    broken = tmp_path / "v7"
    shutil.copytree(source, broken)
    (broken / "expect.json").write_text((source / "expect.json").read_text().replace('"ext4_size": ', '"ext4_size": 1'))
    shutil.copytree(make_vectors.VECTORS / "star", tmp_path / "star")
    lines: list[str] = []
    assert replay.replay(tmp_path, report=lines.append) == (1, 1)
    assert lines[0].startswith("FAILED v7: ext4_size is")
    assert len(lines) == 1


def test_the_command_closes_with_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(make_vectors.VECTORS / "star"), str(make_vectors.VECTORS / "v7")]) == 0
    assert capsys.readouterr().out == "2 passed, 0 failed\n"


def test_an_expected_error_that_does_not_happen_is_a_failure(tmp_path: Path) -> None:
    shutil.copytree(make_vectors.VECTORS / "star", tmp_path / "star")
    (tmp_path / "star/expect.json").write_text('{"error": "x", "error_kind": "tar-header", "options": {}}')
    assert replay.replay(tmp_path, report=lambda _: None) == (0, 1)
