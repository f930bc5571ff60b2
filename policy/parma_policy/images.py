# SPDX-License-Identifier: Apache-2.0
"""What a policy needs of an image: configuration, root hashes of the layers, account files."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from parma_policy.generate import Image
from parma_wire.errors import Malformed, Unverified

if TYPE_CHECKING:
    from parma_policy.layers.blobs import LayerBlob

_ACCOUNT_FILES: Final = ("etc/passwd", "etc/group")
_MAX_ACCOUNT_FILE: Final = 1 << 20

OpenLayer = Callable[[], BinaryIO]
"""Opens a layer as an uncompressed tar stream."""


def from_archive(path: Path, name: str = "") -> Image:
    """An image in a docker or OCI archive, or OCI layout directory; ``name`` says which where there are several.

    Raises the errors of ``layers``.
    """
    from parma_policy.layers import archive

    config, layers = archive.image_archive_layers(path, name)
    return _image(config, layers, name)


def from_containerd(address: str, namespace: str, name: str, *, timeout: float = 30) -> Image:
    """An image in containerd's store. Raises the errors of ``layers``."""
    from parma_policy.layers import containerd

    config, layers = containerd.resolve_image_layers(address, namespace, name, timeout=timeout)
    return _image(config, layers, name)


def _image(config: dict[str, Any], layers: Sequence[LayerBlob], name: str) -> Image:
    hashes = tuple(_root_hash(layer) for layer in layers)
    files = account_files([layer.open for layer in layers])
    runtime = config.get("config") or {}
    if not isinstance(runtime, dict):
        raise Malformed("the image's configuration has no 'config' object")
    return Image(runtime, hashes, files["etc/passwd"], files["etc/group"], name)


def _root_hash(layer: LayerBlob) -> str:
    """The layer's root hash; the content must be what the image's configuration says. Raises Unverified."""
    from parma_policy.layers.convert import layer_to_image

    with layer.open() as stream:
        image = layer_to_image(stream, None)
    if image.diff_id != layer.diff_id:
        message = f"a layer of the image has content {image.diff_id}, not what its configuration says"
        raise Unverified(message, expected=layer.diff_id)
    return image.root_hash


def account_files(layers: Iterable[OpenLayer]) -> dict[str, bytes]:
    """``etc/passwd`` and ``etc/group`` as they are in the image; empty where it has none."""
    found = dict.fromkeys(_ACCOUNT_FILES, b"")
    for open_layer in layers:
        with open_layer() as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                _take(found, tar, member)
    return found


def _take(found: dict[str, bytes], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Applies one entry of a layer to what is known so far: a file, a whiteout, or anything in the file's place."""
    path = member.name.removeprefix("./").strip("/")
    if path in (".wh.etc", "etc/.wh..wh..opq", ".wh..wh..opq"):
        found.update(dict.fromkeys(_ACCOUNT_FILES, b""))
    for name in _ACCOUNT_FILES:
        directory, _, base = name.rpartition("/")
        if path == f"{directory}/.wh.{base}":
            found[name] = b""
        elif path == name:
            file = tar.extractfile(member) if member.isreg() else None
            found[name] = file.read(_MAX_ACCOUNT_FILE) if file else b""
