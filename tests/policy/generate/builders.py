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
