# SPDX-License-Identifier: Apache-2.0
"""Layers that containerd offers as they are: taken when the policy lists them all, and never by halves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_shim.api import types_pb2
from parma_shim.vm.offered import OfferedLayers, offered_layers
from tests.descriptors import descriptors

BASE, TOP = "a" * 64, "b" * 64
POLICY = f'containers := [{{"layers": ["{BASE}", "{TOP}"]}}]'.encode()


class Store:
    """A snapshotter's directory, and what is said about it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: list[str] = []

    def layer(self, name: str, root_hash: str, *, blocks: int = 8, tree: int = 2, **metadata: Any) -> types_pb2.Mount:
        """A blob of ``blocks`` blocks of data with ``tree`` behind them, its metadata, and the mount that offers it."""
        blob = self.directory / f"{name}.erofs"
        blob.write_bytes(bytes((blocks + tree) * 4096))
        document = {"roothash": root_hash, "hashoffset": blocks * 4096, **metadata}
        Path(f"{blob}.dmverity").write_text(json.dumps(document))
        return types_pb2.Mount(
            type="erofs", source=str(blob), options=["ro", "loop", f"X-containerd.dmverity={blob}.dmverity"]
        )

    def offered(self, *mounts: types_pb2.Mount, policy: bytes = POLICY) -> OfferedLayers | None:
        return offered_layers(mounts, policy, self.log.append)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    before = descriptors()
    yield Store(tmp_path)
    assert descriptors() <= before


OVERLAY = types_pb2.Mount(type="format/mkdir/overlay", options=["lowerdir={{ overlay 0 1 }}"])
SCRATCH = types_pb2.Mount(type="mkfs/ext4", source="rwlayer.img", options=["X-containerd.mkfs.fs=ext4"])


def test_listed_layers_are_taken_base_first(store: Store) -> None:
    top, base = store.layer("top", TOP), store.layer("base", BASE, blocks=300, tree=5)
    found = store.offered(SCRATCH, top, base, OVERLAY)
    assert found is not None
    layers = found.layers(deadline=0)
    assert [(layer.root_hash, layer.data_blocks) for layer in layers] == [(BASE, 300), (TOP, 8)]
    assert os.pread(layers[0].fd, 1, 0) == b"\0"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(layers[0].fd, b"x")
    found.close()
    found.close()


@pytest.mark.parametrize(
    "mounts",
    [
        [types_pb2.Mount(type="overlay", source="overlay", options=["lowerdir=/a:/b"])],
        [types_pb2.Mount(type="erofs", source="/layer", options=["ro", "loop"])],
        [],
    ],
)
def test_where_none_is_offered_nothing_is_said(store: Store, mounts: list[types_pb2.Mount]) -> None:
    assert store.offered(*mounts) is None
    assert store.log == []


def test_one_that_the_policy_does_not_list_has_all_of_them_converted(store: Store) -> None:
    assert store.offered(store.layer("top", "c" * 64), store.layer("base", BASE)) is None
    assert "does not list" in store.log[0]


def test_one_without_a_tree_has_all_of_them_converted(store: Store) -> None:
    plain = types_pb2.Mount(type="erofs", source=str(store.directory / "plain"), options=["ro", "loop"])
    assert store.offered(plain, store.layer("base", BASE)) is None


def test_a_layer_in_several_files_is_converted(store: Store) -> None:
    mount = store.layer("base", BASE)
    mount.options.append("device=/other.erofs")
    assert store.offered(mount) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"roothash": BASE.upper()},
        {"roothash": BASE[:-1]},
        {"roothash": None},
        {"hashoffset": 4097},
        {"hashoffset": 0},
        {"hashoffset": -4096},
        {"hashoffset": 4096},
        {"hashoffset": True},
        {"hashoffset": "32768"},
        {"hashoffset": 8192 * 4096},
        {"hashoffset": 1 << 80},
    ],
)
def test_metadata_that_make_no_sense_are_said_and_the_layers_converted(store: Store, metadata: dict[str, Any]) -> None:
    assert store.offered(store.layer("base", BASE, **metadata)) is None
    assert "cannot be used" in store.log[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 5000])
def test_metadata_that_are_none_are_said_and_the_layers_converted(store: Store, content: bytes) -> None:
    mount = store.layer("base", BASE)
    Path(f"{mount.source}.dmverity").write_bytes(content)
    assert store.offered(mount) is None
    assert "cannot be used" in store.log[0]


def test_only_plain_files_are_opened(store: Store) -> None:
    base = store.layer("base", BASE)
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        other = store.directory / "other"
        make(other)
        top = store.layer("top", TOP)
        top.source = str(other)
        assert store.offered(top, base) is None
        other.rmdir() if other.is_dir() and not other.is_symlink() else other.unlink()


def test_metadata_that_are_missing_are_said_and_the_layers_converted(store: Store) -> None:
    mount = store.layer("base", BASE)
    Path(f"{mount.source}.dmverity").unlink()
    assert store.offered(mount) is None
    assert "No such file" in store.log[0]
