# SPDX-License-Identifier: Apache-2.0
"""Image archives and the command, for tests of the generator."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parma_policy.cli import add_policy_commands

Files = Sequence[tuple[str, bytes | None]]


def layer_tar(files: Files) -> bytes:
    """A tar of files; no content: a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            entry.size = len(data or b"")
            tar.addfile(entry, io.BytesIO(data or b""))
    return buffer.getvalue()


BASE = layer_tar([("etc", None), ("etc/passwd", b"root:x:0:0::/:\napp:x:5:6::/:\n"), ("etc/group", b"g:x:7:app\n")])
TOP = layer_tar([("app", b"#!/bin/true\n")])


def archive(path: Path, layers: Sequence[bytes], *, lie: bool = False, **config: Any) -> Path:
    """A ``docker save`` archive."""
    ids = [f"sha256:{hashlib.sha256(layer + b'!' * lie).hexdigest()}" for layer in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/app"], "User": "app", **config},
        "rootfs": {"type": "layers", "diff_ids": ids},
    }
    names = [f"layer{number}.tar" for number in range(len(layers))]
    members = {
        **dict(zip(names, layers, strict=True)),
        "config.json": json.dumps(document).encode(),
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]).encode(),
    }
    path.write_bytes(layer_tar(list(members.items())))
    return path


def parma(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="parma")
    add_policy_commands(parser.add_subparsers())
    parsed = parser.parse_args(list(map(str, arguments)))
    code: int = parsed.run(parsed)
    return code


VECTORS = Path(__file__).resolve().parents[2] / "vectors/generate"

PASSWD = b"root:x:0:0::/:\napp:x:1000:1000::/:\n"
GROUP = b"root:x:0:\napp:x:1000:\nextra:x:7:app\n"


def app_image(path: Path, *, reference: str = "docker.io/library/app:1", **config: Any) -> Path:
    """An OCI archive of two layers: ``serve`` as its command, users root and app, a volume, a health check."""
    layers = [
        layer_tar([("etc", None), ("etc/passwd", PASSWD), ("etc/group", GROUP)]),
        layer_tar([("app", b"#!/bin/true\n")]),
    ]
    runtime = {
        "Entrypoint": ["/entry"],
        "Cmd": ["serve"],
        "Env": ["LANG=C"],
        "WorkingDir": "/srv",
        "Volumes": {"/state": {}},
        "Healthcheck": {"Test": ["CMD-SHELL", "test -e /ok"]},
        "StopSignal": "SIGQUIT",
        **config,
    }
    write_oci(path, layers, runtime, reference)
    return path


def write_oci(path: Path, layers: Sequence[bytes], runtime: dict[str, Any], reference: str) -> str:
    """An OCI archive with an index; returns the digest of its manifest."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[f"blobs/sha256/{digest[7:]}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}

    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "os": "linux",
        "architecture": "amd64",
        "config": runtime,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "config": blob("config.v1+json", json.dumps(document).encode()),
        "layers": [blob("layer.v1.tar", layer) for layer in layers],
    }
    target = blob("manifest.v1+json", json.dumps(manifest).encode())
    index = {"schemaVersion": 2, "manifests": [{**target, "annotations": {"io.containerd.image.name": reference}}]}
    members = {"index.json": json.dumps(index).encode(), **blobs}
    path.write_bytes(layer_tar(list(members.items())))
    digest: str = target["digest"]
    return digest
