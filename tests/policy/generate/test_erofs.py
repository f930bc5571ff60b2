# SPDX-License-Identifier: Apache-2.0
"""Root hashes of layers as containerd's differ makes them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from devtool import paths
from parma_policy.generate import erofs
from parma_policy.images import LayerFacts
from parma_policy.layers.blobs import LayerBlob
from parma_wire.errors import Malformed, Unavailable

MKFS = paths.PREFIX / "bin/mkfs.erofs"
VERITYSETUP = paths.PREFIX / "bin/veritysetup"
needs_tools = pytest.mark.skipif(not MKFS.exists(), reason="no mkfs.erofs: run ./dev setup")

DIGEST = f"sha256:{'7' * 64}"


def layer(*, files: int = 3, digest: str = DIGEST) -> LayerBlob:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in range(files):
            member = tarfile.TarInfo(f"file{number}")
            member.size, member.mtime = 5000, 1_700_000_000
            tar.addfile(member, io.BytesIO(bytes([number]) * 5000))
    text = data.getvalue()
    return LayerBlob(f"sha256:{'8' * 64}", digest, "", None, len(text), opener=lambda: io.BytesIO(text))


def test_the_uuid_is_that_of_containerd() -> None:
    """uuid.NewSHA1(uuid.NameSpaceURL, "erofs:blobs/" + digest) of Go's google/uuid: RFC 9562, version 5."""
    assert erofs.blob_uuid("sha256:abc") == "85e718ef-380a-569e-869f-1e4fa72e8846"


@needs_tools
def test_the_root_hash_is_that_of_veritysetup_over_the_same_file(tmp_path: Path) -> None:
    image = tmp_path / "layer.erofs"
    erofs.make_image(layer(), str(MKFS), image)
    done = subprocess.run(
        [VERITYSETUP, "format", f"--salt={'00' * 32}", image, tmp_path / "tree"],
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Root hash:")]
    assert erofs.root_hash(layer(), str(MKFS)) == line.split()[-1]


@needs_tools
def test_the_hash_depends_on_what_is_stored_and_on_its_name_only() -> None:
    first = erofs.root_hash(layer(), str(MKFS))
    assert erofs.root_hash(layer(), str(MKFS)) == first
    assert erofs.root_hash(layer(files=4), str(MKFS)) != first
    assert erofs.root_hash(layer(digest=f"sha256:{'9' * 64}"), str(MKFS)) != first


@needs_tools
def test_facts_other_than_the_hash_are_the_readers() -> None:
    fact = LayerFacts(f"sha256:{'8' * 64}", "0" * 64, {"etc/passwd": b"x"})
    (found,) = erofs.ErofsReader(lambda _layers: [fact], str(MKFS))([layer()])
    assert (found.diff_id, found.accounts) == (fact.diff_id, fact.accounts)
    assert found.root_hash == erofs.root_hash(layer(), str(MKFS))


def test_a_single_block_is_refused() -> None:
    with pytest.raises(Malformed, match="one block"):
        erofs.file_root_hash(io.BytesIO(bytes(4096)))


def test_a_missing_program_is_named() -> None:
    with pytest.raises(Unavailable, match="cannot run") as raised:
        erofs.root_hash(layer(), "/nowhere/mkfs.erofs")
    assert "erofs-utils" in raised.value.hint


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "mkfs.erofs"
    program.write_text("#!/bin/sh\ncat >/dev/null\necho 'unknown option --tar'\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match="unknown option --tar"):
        erofs.root_hash(layer(), str(program))
