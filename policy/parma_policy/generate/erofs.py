# SPDX-License-Identifier: Apache-2.0
"""Root hashes of layers as containerd's erofs differ makes them, by the same ``mkfs.erofs`` with the same options.

Of two hosts with the same version of erofs-utils both get the same bytes only when mkfs.erofs is told not to write down
the time: containerd's ``mkfs_options`` have to be :data:`MKFS_OPTIONS`. See docs/erofs-layers.md.
"""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from parma_policy.images import LayerFacts
from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.verity import BLOCK, append_digests, hash_device
from parma_wire.errors import Malformed, Unavailable

MKFS: Final = "mkfs.erofs"
MKFS_OPTIONS: Final = ("-b4096", "-T0", "--mkfs-time")
"""What containerd's configuration must have for its differ; the time is that of the file system, not of the files."""

_FIXED_OPTIONS: Final = ("--tar=f", "--aufs", "--quiet", "-Enoinline_data")
"""What the differ always says."""

_PIECE: Final = 1 << 20
_MAX_WORDS: Final = 500

Reader = Callable[[Sequence[LayerBlob]], list[LayerFacts]]


class ErofsReader:
    """What ``reader`` says of layers, with the root hashes of their erofs images."""

    def __init__(self, reader: Reader, mkfs: str = MKFS) -> None:
        """``mkfs`` is the program to run."""
        self._reader = reader
        self._mkfs = mkfs
        self._known: dict[str, str] = {}

    def __call__(self, layers: Sequence[LayerBlob]) -> list[LayerFacts]:
        """The facts of each layer, in order. Raises the errors of ``reader`` and of :func:`root_hash`."""
        facts = self._reader(layers)
        return [
            dataclasses.replace(fact, root_hash=self._root_hash(layer))
            for fact, layer in zip(facts, layers, strict=True)
        ]

    def _root_hash(self, layer: LayerBlob) -> str:
        digest = layer.digest or layer.diff_id
        if digest not in self._known:
            self._known[digest] = root_hash(layer, self._mkfs)
        return self._known[digest]


def root_hash(layer: LayerBlob, mkfs: str = MKFS) -> str:
    """The dm-verity root hash, in hexadecimal, of the layer's erofs image. Raises Unavailable, Malformed."""
    with tempfile.TemporaryDirectory(prefix="parma-erofs-") as directory:
        image = Path(directory, "layer.erofs")
        make_image(layer, mkfs, image)
        with image.open("rb") as file:
            return file_root_hash(file)


def file_root_hash(file: BinaryIO) -> str:
    """The root hash over a file's blocks, the last one filled up with zeros. Malformed for a single block.

    That one would have no tree: its hash would be the root itself.
    """
    digests = bytearray()
    while piece := file.read(_PIECE):
        append_digests(digests, piece + bytes(-len(piece) % BLOCK))
    _, root = hash_device(digests)
    if len(digests) <= len(root) // 2:
        raise Malformed("an erofs layer of one block cannot be used", expected="an image without empty layers")
    return root


def blob_uuid(digest: str) -> str:
    """The UUID of a layer's file system, from the digest of the blob as it is stored (RFC 9562, version 5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"erofs:blobs/{digest}"))


def make_image(layer: LayerBlob, mkfs: str, image: Path) -> None:
    """Writes the file that containerd's differ would. Raises Unavailable, and the errors of reading the layer."""
    command = [mkfs, *_FIXED_OPTIONS, *MKFS_OPTIONS, "-U", blob_uuid(layer.digest or layer.diff_id), str(image)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise Unavailable(
            f"cannot run {mkfs}: {error.strerror}", hint="install erofs-utils 1.7 or later, or --mkfs-erofs PATH"
        ) from error
    with process, layer.open() as tar:
        _feed(process, tar)
        words = process.communicate()[0]
    if process.returncode:
        text = words.decode(errors="replace").strip()[-_MAX_WORDS:]
        raise Unavailable(f"{mkfs} failed for layer {layer.diff_id}: {text}", hint="erofs-utils 1.7 or later")


def _feed(process: subprocess.Popen[bytes], tar: BinaryIO) -> None:
    assert process.stdin is not None  # noqa: S101
    try:
        while piece := tar.read(_PIECE):
            process.stdin.write(piece)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has what it needs, or says what it does not like
    except BaseException:
        process.kill()
        raise
