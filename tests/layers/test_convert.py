# SPDX-License-Identifier: Apache-2.0
"""Properties of the conversion as a whole: totality, determinism, bounded memory, failures of the output."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parma_policy.layers import verity
from parma_policy.layers.convert import LayerImage, layer_to_image, root_hash
from parma_policy.layers.errors import LayerError
from parma_policy.layers.inode import Inode, map_data
from parma_policy.layers.recipe import RecipeTar
from tests.descriptors import descriptors

from . import make_vectors, tars

MIB = 1 << 20

names = st.lists(
    st.sampled_from([b"a", b"b", b"dir", b".wh.a", b".wh..wh..opq", b"..", b"", b"lost+found", b"\xff", b"x" * 80]),
    min_size=1,
    max_size=3,
).map(b"/".join)
kinds = st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"\0", b"Z"])
contents = st.integers(0, 20_000).map(lambda size: hashlib.shake_128(b"%d" % size).digest(size))
attributes = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"trusted.c", b"system.posix_acl_access", b"d", b"user.long" + b"n" * 90]),
    st.binary(max_size=300),
    max_size=4,
)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    kind = draw(kinds)
    data = draw(contents) if kind in (b"0", b"7", b"Z") else b""
    found = draw(attributes)
    out = tars.xattrs(*found.items()) if found else b""
    link = draw(names) if kind in (b"1", b"2") else b""
    mode = draw(st.integers(0, 0o7777))
    mtime = draw(st.integers(-(1 << 40), 1 << 40))
    head = tars.header(draw(names), kind, size=len(data), mode=mode, uid=draw(st.integers(0, 1 << 33)), mtime=mtime,
                       link=link, minor=draw(st.integers(0, 1 << 20)))  # fmt: skip
    return out + head + tars.padded(data)


trees = st.lists(entries(), max_size=8).map(lambda found: b"".join(found) + tars.END)


class Dribble:
    """A stream that gives its bytes in pieces of the sizes asked for, over and over."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = memoryview(data)
        self._sizes = sizes
        self._turn = 0

    def read(self, size: int) -> bytes:
        wanted = min(size, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        piece, self._data = bytes(self._data[:wanted]), self._data[wanted:]
        return piece


def outcome(source: object, *, out: bool = False) -> LayerImage | str:
    """The result, or the class of the error."""
    try:
        return layer_to_image(source, io.BytesIO() if out else None)  # type: ignore[arg-type]
    except LayerError as error:
        return error.kind.value


@given(st.binary(max_size=4000))
def test_any_bytes_convert_or_are_malformed(data: bytes) -> None:
    outcome(io.BytesIO(data))


@given(trees, st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=12)), max_size=3))
def test_damaged_layers_convert_or_are_malformed(data: bytes, damage: list[tuple[int, bytes]]) -> None:
    block = bytearray(data)
    for position, patch in damage:
        start = position % len(block)
        block[start : start + len(patch)] = patch
        # With a right checksum, more of the header's parsing is reached.
        head = start - start % 512
        if len(block) >= head + 512:
            block[head : head + 512] = tars.sealed(block[head : head + 512])
    outcome(io.BytesIO(block))


@settings(deadline=None)
@given(trees)
def test_the_same_tar_gives_the_same_image_with_and_without_output(data: bytes) -> None:
    first = outcome(io.BytesIO(data))
    assert outcome(io.BytesIO(data)) == first
    assert outcome(io.BytesIO(data), out=True) == first


@settings(deadline=None)
@given(trees, st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_pieces_of_the_input_do_not_matter(data: bytes, sizes: list[int]) -> None:
    assert outcome(Dribble(data, sizes)) == outcome(io.BytesIO(data))


@settings(deadline=None)
@given(trees, st.binary(max_size=2000))
def test_bytes_after_the_end_change_the_diffid_alone(data: bytes, trailing: bytes) -> None:
    plain, longer = outcome(io.BytesIO(data)), outcome(io.BytesIO(data + trailing))
    if isinstance(plain, str) or isinstance(longer, str):
        assert plain == longer
        return
    assert longer.root_hash == plain.root_hash
    assert longer.diff_id == "sha256:" + hashlib.sha256(data + trailing).hexdigest()


def test_the_image_starts_where_the_output_stands() -> None:
    data = tars.file(b"a", b"data") + tars.END
    plain, shifted = io.BytesIO(), io.BytesIO(b"head")
    shifted.seek(4)
    layer_to_image(io.BytesIO(data), plain)
    layer_to_image(io.BytesIO(data), shifted)
    assert shifted.getvalue() == b"head" + plain.getvalue()


def test_a_large_file_is_written_as_it_is_hashed(tmp_path: Path) -> None:
    recipe = {"path": "f", "type": "file", "size": 5 * MIB + 777, "fill": {"kind": "shake128", "seed": "s"}}
    source = {"format": 1, "entries": [recipe, {**recipe, "path": "g", "size": 100}]}
    with (tmp_path / "image").open("w+b") as out:
        result = layer_to_image(RecipeTar(source), out)
        size = out.seek(0, io.SEEK_END)
        out.seek(9 * 4096)  # behind superblock and descriptors
        data = out.read(5 * MIB + 777)
    tar = RecipeTar(source)
    assert data == tar.read(6 * MIB)[512 : 512 + len(data)]
    assert size == result.total_size
    assert result.root_hash == root_hash(RecipeTar(source))


def test_a_full_disk_is_reported_and_ends_the_threads() -> None:
    class Full(io.BytesIO):
        def write(self, _: object, /) -> int:
            raise OSError(28, "No space left on device")

    source = {"path": "f", "type": "file", "size": 40 * MIB, "fill": {"kind": "byte", "value": 1}}
    before = threading.active_count()
    with pytest.raises(OSError, match="No space"):
        layer_to_image(RecipeTar({"format": 1, "entries": [source]}), Full())
    assert threading.active_count() == before


def test_many_rewritten_attribute_blocks_are_right() -> None:
    big = tars.xattrs((b"user.big", b"x" * 200))
    first = b"".join(big + tars.directory(b"d%03d" % i) for i in range(400))
    again = b"".join(tars.xattrs((b"user.b", b"%d" % i)) + tars.directory(b"d%03d" % i) for i in range(400))
    out = io.BytesIO()
    result = layer_to_image(io.BytesIO(first + again + tars.END), out)
    # What was written has the root hash that was computed on the way.
    digests = bytearray()
    verity.append_digests(digests, out.getvalue()[: result.ext4_size])
    assert verity.tree_levels(digests)[1].hex() == result.root_hash


def test_deep_paths_need_no_deep_stack() -> None:
    data = tars.long_name(b"/".join([b"d"] * 5000)) + tars.directory(b"x") + tars.END
    assert isinstance(outcome(io.BytesIO(data)), LayerImage)


def test_files_whose_extents_the_reference_gets_wrong_are_refused() -> None:
    with pytest.raises(LayerError, match="42 GiB"):
        map_data(Inode(12), 100, 340 * 32768, 100 + 340 * 32768)


_MEASURE = """
import resource, sys
from parma_policy.layers.convert import layer_to_image
from parma_policy.layers.recipe import RecipeTar
def run(size, out):
    entry = {"path": "f", "type": "file", "size": size << 20, "fill": {"kind": "byte", "value": 3}}
    layer_to_image(RecipeTar({"format": 1, "entries": [entry]}), out)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(sys.argv[1], "wb") as out:
    small = run(20, out)
    out.seek(0)
    print(run(300, out) - small)
"""


def test_memory_does_not_grow_with_the_layer(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", _MEASURE, str(tmp_path / "image")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    # 280 MiB more data have 2.2 MiB of digests, kept up to three times while the tree is made.
    assert int(done.stdout) < 12 * 1024


def test_no_descriptor_or_thread_is_left(tmp_path: Path) -> None:
    before, threads = descriptors(), threading.active_count()
    for golden in list(make_vectors.goldens())[:20]:
        if golden.tar is not None:
            with (tmp_path / "out").open("w+b") as out:
                try:
                    layer_to_image(io.BytesIO(golden.tar), out)
                except LayerError:
                    continue
    assert descriptors() <= before
    assert threading.active_count() <= threads
