# SPDX-License-Identifier: Apache-2.0
"""Opening stored layers: compressions, damage, sections of files."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy.layers import blobs
from parma_policy.layers.blobs import LayerBlob, check_media_type, decompressed, open_blob
from parma_wire.errors import Malformed, NotFound, Unavailable, Unsupported

DATA = bytes(range(256)) * 4000


@pytest.mark.parametrize(
    "stored",
    [
        DATA,
        gzip.compress(DATA),
        gzip.compress(DATA[:1000]) + gzip.compress(b"") + gzip.compress(DATA[1000:]),
        gzip.compress(DATA) + bytes(700),
    ],
    ids=["plain", "gzip", "several members", "zero padding"],
)
def test_the_tar_comes_out_however_it_is_stored(tmp_path: Path, stored: bytes) -> None:
    path = tmp_path / "blob"
    path.write_bytes(stored)
    with open_blob(path) as stream:
        assert stream.read(10) == DATA[:10]
        assert stream.read() == DATA[10:]
        assert stream.read(1) == b""


@settings(deadline=None)
@given(st.lists(st.integers(100, 70_000), min_size=1, max_size=5))
def test_reads_of_any_size_give_the_same_bytes(sizes: list[int]) -> None:
    stream = decompressed(io.BytesIO(gzip.compress(DATA)))
    out = b""
    turn = 0
    while piece := stream.read(sizes[turn % len(sizes)]):
        assert len(piece) <= sizes[turn % len(sizes)]
        out += piece
        turn += 1
    assert out == DATA


@pytest.mark.parametrize(
    "stored", [gzip.compress(DATA)[:-1], gzip.compress(DATA)[:200], gzip.compress(DATA) + b"junk", b"\x1f\x8bxx" * 9]
)
def test_damaged_gzip_is_malformed(stored: bytes) -> None:
    stream = decompressed(io.BytesIO(stored))
    with pytest.raises(Malformed, match="gzip"):
        stream.read()


def test_a_bomb_is_read_in_bounded_pieces() -> None:
    stream = decompressed(io.BytesIO(gzip.compress(bytes(50 << 20))))
    assert {len(stream.read(1 << 20)) <= 1 << 20 for _ in range(20)} == {True}


def test_readinto_works_for_libraries_that_want_it() -> None:
    stream = io.BufferedReader(decompressed(io.BytesIO(gzip.compress(DATA))))  # type: ignore[type-var]
    assert stream.read() == DATA


def zstd(data: bytes) -> bytes:
    """One frame."""
    done: bytes = blobs._zstd_library().compress(data)
    return done


METADATA = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"some data"
"""A frame that readers skip (RFC 8878, 3.1.2)."""


@pytest.mark.parametrize(
    "stored",
    [zstd(DATA), zstd(DATA[:1000]) + zstd(b"") + zstd(DATA[1000:]), zstd(DATA) + METADATA],
    ids=["one frame", "several frames", "a frame of metadata"],
)
def test_zstd_is_read(tmp_path: Path, stored: bytes) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"before" + stored + b"after")
    with open_blob(path, "application/vnd.oci.image.layer.v1.tar+zstd", offset=6, size=len(stored)) as stream:
        assert stream.read(10) == DATA[:10]
        assert stream.read() == DATA[10:]
        assert stream.read(1) == b""


@pytest.mark.parametrize("stored", [zstd(DATA)[:-1], zstd(DATA)[:30], zstd(DATA) + b"junk", zstd(b"")[:4] + b"x" * 40])
def test_damaged_zstd_is_malformed(stored: bytes) -> None:
    stream = decompressed(io.BytesIO(stored))
    with pytest.raises(Malformed, match="zstd"):
        stream.read()


def test_a_zstd_bomb_is_read_in_bounded_pieces() -> None:
    stream = decompressed(io.BytesIO(zstd(bytes(50 << 20))))
    assert {len(stream.read(1 << 20)) <= 1 << 20 for _ in range(20)} == {True}


def test_without_its_library_zstd_is_refused_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_ZSTD_MODULES", ("no_such_library",))
    source = io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(Unsupported, match="zstd"):
        decompressed(source)
    assert source.closed


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layer_types_are_known(media_type: str) -> None:
    check_media_type(media_type)


@pytest.mark.parametrize(
    "media_type", ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.in-toto+json", "text/tar"]
)
def test_other_types_are_not_supported(media_type: str) -> None:
    with pytest.raises(Unsupported):
        check_media_type(media_type)


def test_a_section_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(b"before" + DATA + b"after")
    blob = LayerBlob("", "", "", path, len(DATA), offset=6)
    with blob.open() as stream:
        assert stream.read() == DATA


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_blob(tmp_path / "none")
    with pytest.raises(Unavailable):
        open_blob(tmp_path)
    with pytest.raises(NotFound):
        LayerBlob("", "sha256:x", "", None, 0).open()


def test_closing_closes_the_source() -> None:
    source = io.BytesIO(gzip.compress(DATA))
    decompressed(source).close()
    assert source.closed
    other = io.BytesIO(b"x")
    with pytest.raises(Unsupported):
        decompressed(other, "text/plain")
    assert other.closed
