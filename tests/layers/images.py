# SPDX-License-Identifier: Apache-2.0
"""Images for tests: blobs by digest, manifests, indexes."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

from . import tars

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tars(count: int, seed: str = "") -> list[bytes]:
    return [tars.file(b"f%d" % number, f"{seed}{number}".encode() * 1000) + tars.END for number in range(count)]


class Store:
    """Blobs, and the documents that name them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keep a blob and return its descriptor."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, value: object, media_type: str, **more: Any) -> dict[str, Any]:
        return self.add(json.dumps(value).encode(), media_type, **more)

    def image(
        self,
        layers: list[bytes],
        *,
        architecture: str = "amd64",
        docker: bool = False,
        compressed: bool = True,
        layer_type: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """A manifest with its configuration and layers; returns the manifest's descriptor."""
        config = {
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        if docker:
            types = (DOCKER + "image.rootfs.diff.tar.gzip", DOCKER + "container.image.v1+json")
            manifest_type = DOCKER + "distribution.manifest.v2+json"
        else:
            types = (OCI + "layer.v1.tar" + ("+gzip" if compressed else ""), OCI + "config.v1+json")
            manifest_type = OCI + "manifest.v1+json"
        stored = [gzip.compress(layer, mtime=0) if compressed else layer for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.document(config, types[1]),
            "layers": [self.add(blob, layer_type or types[0]) for blob in stored],
        }
        return self.document(manifest, manifest_type, **more)

    def index(self, *members: dict[str, Any], docker: bool = False, **more: Any) -> dict[str, Any]:
        media_type = DOCKER + "distribution.manifest.list.v2+json" if docker else OCI + "index.v1+json"
        return self.document({"schemaVersion": 2, "mediaType": media_type, "manifests": members}, media_type, **more)


def platform(architecture: str, system: str = "linux") -> dict[str, str]:
    return {"os": system, "architecture": architecture}
