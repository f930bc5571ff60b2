# SPDX-License-Identifier: Apache-2.0
"""Container images for demo, tests and bench, made from Debian packages: no registry is assumed anywhere.

An image is an OCI layout in a tar archive, as ``ctr image import`` takes it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import repeat
from pathlib import Path
from typing import Any

MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Packing(Enum):
    """How a layer is stored; the value is what its media type ends with."""

    PLAIN = ""
    GZIP = "+gzip"
    ZSTD = "+zstd"

    def pack(self, layer: bytes) -> bytes:
        if self is Packing.GZIP:
            return gzip.compress(layer, 6, mtime=0)
        if self is Packing.ZSTD:
            packed: bytes = importlib.import_module("backports.zstd").compress(layer)
            return packed
        return layer


@dataclass(frozen=True)
class ImageConfig:
    """What the image says about running it (OCI image-spec, config.md)."""

    cmd: Sequence[str] = ("/bin/sh",)
    env: Sequence[str] = (DEFAULT_PATH,)
    working_dir: str = "/"
    user: str = ""


@dataclass
class LayerBuilder:
    """One layer tar, entries in the order they are added, nothing taken from this machine's clock or users."""

    buffer: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, kind: bytes, *, mode: int = 0o755, data: bytes = b"", link: str = "") -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
        self.tar.addfile(entry, io.BytesIO(data))

    def directory(self, name: str, mode: int = 0o755) -> None:
        self.add(name, tarfile.DIRTYPE, mode=mode)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self.add(name, tarfile.REGTYPE, mode=mode, data=data)

    def hard_link(self, name: str, target: str, mode: int = 0o755) -> None:
        self.add(name, tarfile.LNKTYPE, mode=mode, link=target)

    def symlink(self, name: str, target: str) -> None:
        self.add(name, tarfile.SYMTYPE, mode=0o777, link=target)

    def tar_members(self, source: Path, keep: Callable[[str], bool]) -> None:
        """Adds the members of another tar file (``dpkg-deb --fsys-tarfile``) for which ``keep(name)`` is true."""
        with tarfile.open(source) as other:
            for member in other:
                if keep(member.name):
                    member.mtime = 0
                    self.tar.addfile(member, other.extractfile(member) if member.isreg() else None)

    def finish(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def write_archive(
    destination: Path,
    reference: str,
    layers: Sequence[bytes],
    config: ImageConfig,
    packings: Iterable[Packing] = repeat(Packing.GZIP),
) -> None:
    """Writes an OCI layout archive with one linux/amd64 image of the given uncompressed layer tars, base first.

    ``packings`` says for each of them how it is stored.
    """
    blobs: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    descriptors = [
        {"mediaType": MEDIA_LAYER + packing.value, **blob(packing.pack(layer))}
        for layer, packing in zip(layers, packings, strict=False)
    ]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Cmd": list(config.cmd),
            "Env": list(config.env),
            "WorkingDir": config.working_dir,
            "User": config.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": {"mediaType": MEDIA_CONFIG, **blob(json.dumps(document).encode())},
        "layers": descriptors,
    }
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": MEDIA_MANIFEST,
                **blob(json.dumps(manifest).encode()),
                "annotations": {
                    "io.containerd.image.name": reference,
                    "org.opencontainers.image.ref.name": reference.rsplit(":", 1)[-1],
                },
            }
        ],
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    outer = LayerBuilder()
    outer.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    outer.file("index.json", json.dumps(index).encode())
    for digest, data in blobs.items():
        outer.file(f"blobs/sha256/{digest}", data)
    destination.write_bytes(outer.finish())


BUSYBOX_APPLETS = (  # noqa: SIM905
    "sh ash cat echo ls true false sleep sha256sum head tail dd yes stty tty id env hostname ps kill mount umount "
    "mkdir rm touch wc seq printf date uname pwd grep test [ trap nproc df stat chmod tr sync mknod find"
).split()


def busybox_layer(busybox: bytes) -> bytes:
    """A root file system of one static busybox and the few files programs expect."""
    layer = LayerBuilder()
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "var", "home"):
        layer.directory(name)
    layer.directory("tmp", 0o1777)
    layer.file("bin/busybox", busybox, 0o755)
    for applet in BUSYBOX_APPLETS:
        layer.hard_link(f"bin/{applet}", "bin/busybox")
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    layer.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    return layer.finish()


def write_busybox_image(destination: Path, busybox: Path, reference: str) -> None:
    """One layer, ``/bin/sh`` as its command."""
    write_archive(destination, reference, [busybox_layer(busybox.read_bytes())], ImageConfig())
