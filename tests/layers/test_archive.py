# SPDX-License-Identifier: Apache-2.0
"""Images in archives and layout directories."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parma_policy.layers.archive import image_archive_layers
from parma_wire.errors import Malformed, NotFound, ParmaError, Unsupported, Unverified

from . import tars
from .images import Store, digest_of, layer_tars, platform


def write_tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)
    return path


def layout(store: Store, *members: dict[str, Any]) -> dict[str, bytes]:
    index = json.dumps({"schemaVersion": 2, "manifests": members}).encode()
    blobs = {"blobs/" + digest.replace(":", "/"): data for digest, data in store.blobs.items()}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}


def write_directory(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def contents(path: Path, image: str = "") -> list[bytes]:
    config, layers = image_archive_layers(path, image)
    assert [layer.diff_id for layer in layers] == config["rootfs"]["diff_ids"]
    out = []
    for layer in layers:
        with layer.open() as stream:
            out.append(stream.read())
    return out


@pytest.mark.parametrize("write", [write_tar, write_directory])
@pytest.mark.parametrize("compressed", [True, False])
def test_oci_layouts(tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], compressed: bool) -> None:
    store, layers = Store(), layer_tars(3)
    index = store.index(
        store.image(layer_tars(1, "arm"), architecture="arm64", platform=platform("arm64")),
        store.image(layers, compressed=compressed, platform=platform("amd64")),
        store.image([], platform=platform("unknown", "unknown")),
    )
    assert contents(write(tmp_path / "image", layout(store, index))) == layers


def docker_save(layers: list[bytes], architecture: str = "amd64", tag: str = "busybox:1") -> dict[str, bytes]:
    config = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": [digest_of(tar) for tar in layers]}}
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    return {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(config).encode(),
        **dict(zip(names, layers, strict=True)),
    }


def test_docker_save(tmp_path: Path) -> None:
    layers = layer_tars(2)
    path = write_tar(tmp_path / "image", docker_save(layers))
    assert contents(path) == layers
    assert contents(path, "busybox:1") == layers


def test_docker_save_with_links_for_equal_layers(tmp_path: Path) -> None:
    layers = layer_tars(1) * 2
    members = docker_save(layers)
    del members["1/layer.tar"]
    assert contents(write_tar(tmp_path / "image", members, {"1/layer.tar": "../0/layer.tar"})) == layers


def test_one_of_several_images_must_be_named(tmp_path: Path) -> None:
    store = Store()
    name = "io.containerd.image.name"
    images = [store.image(layer_tars(1, tag), annotations={name: tag}) for tag in ("one", "two")]
    path = write_tar(tmp_path / "image", layout(store, *images))
    with pytest.raises(Malformed, match="several") as error:
        image_archive_layers(path)
    assert "one" in str(error.value)
    assert contents(path, "two") == layer_tars(1, "two")
    with pytest.raises(NotFound, match="three"):
        image_archive_layers(path, "three")


def damaged_blob(members: dict[str, bytes]) -> None:
    name = next(name for name, data in members.items() if b"rootfs" in data)
    members[name] += b" "


def missing_layer(members: dict[str, bytes]) -> None:
    name = next(name for name, data in members.items() if data[:2] == b"\x1f\x8b")
    del members[name]


def index_is_no_json(members: dict[str, bytes]) -> None:
    members["index.json"] = b"{"


def index_is_a_list(members: dict[str, bytes]) -> None:
    members["index.json"] = b"[]"


def escaping_digest(members: dict[str, bytes]) -> None:
    members["index.json"] = b'{"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]}'


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damaged_blob, Unverified),
        (missing_layer, NotFound),
        (index_is_no_json, Malformed),
        (index_is_a_list, Malformed),
        (escaping_digest, Malformed),
    ],
)
@pytest.mark.parametrize("write", [write_tar, write_directory])
def test_damaged_layouts(
    tmp_path: Path,
    write: Callable[[Path, dict[str, bytes]], Path],
    damage: Callable[[dict[str, bytes]], None],
    error: type[ParmaError],
) -> None:
    store = Store()
    members = layout(store, store.image(layer_tars(1)))
    damage(members)
    with pytest.raises(error):
        image_archive_layers(write(tmp_path / "image", members))


def test_other_platforms_are_refused(tmp_path: Path) -> None:
    store = Store()
    with pytest.raises(NotFound, match="linux/amd64"):
        image_archive_layers(
            write_tar(tmp_path / "oci", layout(store, store.image(layer_tars(1), architecture="arm64")))
        )
    with pytest.raises(Unsupported, match="arm64"):
        image_archive_layers(write_tar(tmp_path / "docker", docker_save(layer_tars(1), "arm64")))


def test_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        image_archive_layers(tmp_path / "none")
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(Malformed, match="tar"):
        image_archive_layers(tmp_path / "junk")
    with pytest.raises(Malformed, match="no image"):
        image_archive_layers(write_tar(tmp_path / "empty", {"a": b""}))


def test_a_directory_does_not_give_out_files_outside(tmp_path: Path) -> None:
    store = Store()
    outside = tmp_path / "secret"
    outside.write_bytes(b"{}")
    members = docker_save(layer_tars(1))
    members["manifest.json"] = json.dumps([{"Config": "../secret", "Layers": []}]).encode()
    assert store.blobs == {}
    with pytest.raises(NotFound):
        image_archive_layers(write_directory(tmp_path / "image", members))


@pytest.mark.parametrize("size", [-1, 1 << 62], ids=["negative", "beyond any file"])
def test_a_tar_with_an_impossible_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(tars.header(b"index.json", size=size) + tars.END)
    with pytest.raises(ParmaError):
        image_archive_layers(path)
