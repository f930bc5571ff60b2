# SPDX-License-Identifier: Apache-2.0
"""Image archives: any bytes are an image whose layers can be read, or an error of ours.

As with layers, each input is also taken with its tar's checksums mended.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

from parma_policy.layers.archive import image_archive_layers
from parma_wire.errors import ParmaError
from tests.fuzz.targets.layer_tar import mended
from tests.layers.images import Store, digest_of, layer_tars

_LARGEST_LAYER = 1 << 20


def _tar(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def _layout() -> bytes:
    store = Store()
    index = json.dumps({"schemaVersion": 2, "manifests": [store.image(layer_tars(1)[:1])]}).encode()
    blobs = {"blobs/" + digest.replace(":", "/"): data for digest, data in store.blobs.items()}
    return _tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs})


def _docker_save() -> bytes:
    (layer,) = layer_tars(1)
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(layer)] * 2}}
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    members = {"manifest.json": manifest, "c.json": config}
    files = {name: json.dumps(value).encode() for name, value in members.items()}
    return _tar({**files, "0/layer.tar": layer}, {"1/layer.tar": "../0/layer.tar"})


SEEDS = [_layout(), _docker_save(), _tar({"index.json": b'{"manifests": [{"digest": "sha256:0", "size": -1}]}'})]


def target(data: bytes) -> None:
    """Reads an archive, and each of its layers from the beginning."""
    with tempfile.TemporaryDirectory(prefix="parma-fuzz-") as directory:
        path = Path(directory) / "image.tar"
        for archive in (data, mended(data)):
            path.write_bytes(archive)
            try:
                _, layers = image_archive_layers(path)
                for layer in layers:
                    with layer.open() as stream:
                        stream.read(_LARGEST_LAYER)
            except ParmaError:
                continue
