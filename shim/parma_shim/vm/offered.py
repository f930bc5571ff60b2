# SPDX-License-Identifier: Apache-2.0
"""Layers that containerd offers as they are: erofs, with a dm-verity tree behind the data.

containerd 2.3 makes them (differ ``erofs`` with ``enable_dmverity``) and says so in the mounts of a Create: type
``erofs``, option ``X-containerd.dmverity=FILE``, FILE being JSON with ``roothash`` and ``hashoffset``. Its layout is
that of converted layers: 4096-byte blocks, SHA-256, a salt of 32 zero bytes, a superblock that nobody reads, the tree.

They are used when the policy lists their root hashes, all of them, and otherwise the layers are converted. Nothing
here is believed: the guest verifies what it mounts with the hash that the policy lists.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from parma_shim.vm.layers import MAX_LAYERS, Layer
from parma_wire.errors import ParmaError

TYPE: Final = "erofs"
OPTION: Final = "X-containerd.dmverity="

_BLOCK: Final = 4096
_MAX_METADATA: Final = 4096
_MAX_BLOCKS: Final = 1 << 40
_HASH: Final = re.compile("[0-9a-f]{64}", re.ASCII)


class Mount(Protocol):
    """``containerd.types.Mount``."""

    @property
    def type(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def options(self) -> Sequence[str]: ...


class OfferedLayers:
    """A ``LayerSource`` of open files."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers
        self.error: ParmaError | None = None

    def layers(self, *, deadline: float) -> list[Layer]:
        """The layers, base first."""
        del deadline
        return self._layers

    def close(self) -> None:
        """Close every descriptor."""
        for layer in self._layers:
            os.close(layer.fd)
        self._layers = []


def offered_layers(mounts: Iterable[Mount], policy: bytes, log: Callable[[str], None]) -> OfferedLayers | None:
    """The layers in ``mounts``, or None where they have to be converted: none are offered, the policy lists others, or
    they cannot be read. The mounts have the top layer first."""
    found = [mount for mount in mounts if mount.type == TYPE]
    options = [_metadata_file(mount) for mount in found]
    if not 0 < len(found) <= MAX_LAYERS or not all(options):
        return None
    layers: list[Layer] = []
    try:
        for mount, option in zip(reversed(found), reversed(options), strict=True):
            root_hash, blocks = _read_metadata(Path(option))
            if b'"%s"' % root_hash.encode() not in policy:
                _close(layers)
                log("containerd offers erofs layers that the policy does not list: converting")
                return None
            layers.append(Layer(root_hash, blocks, _open(mount.source, blocks)))
    except (OSError, ValueError, RecursionError) as error:
        _close(layers)
        log(f"containerd offers erofs layers that cannot be used, converting: {error}")
        return None
    return OfferedLayers(layers)


def _metadata_file(mount: Mount) -> str:
    """Empty when there is no tree, or when the layer is spread over several files."""
    if any(option.startswith("device=") for option in mount.options):
        return ""
    return next((option.removeprefix(OPTION) for option in mount.options if option.startswith(OPTION)), "")


def _read_metadata(path: Path) -> tuple[str, int]:
    """Root hash and number of data blocks. Raises OSError, ValueError, RecursionError."""
    with open(path, "rb", buffering=0) as file:
        document = json.loads(file.read(_MAX_METADATA))
    members = document if isinstance(document, dict) else {}
    root_hash, offset = members.get("roothash"), members.get("hashoffset")
    if not isinstance(root_hash, str) or not _HASH.fullmatch(root_hash):
        raise ValueError(f"{path.name} has no roothash")
    # One block has no tree that the guest could check it by: its hash would be the root itself.
    if type(offset) is not int or offset % _BLOCK or not 1 < offset // _BLOCK <= _MAX_BLOCKS:
        raise ValueError(f"{path.name} has no usable hashoffset")
    return root_hash, offset // _BLOCK


def _open(path: str, blocks: int) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size > blocks * _BLOCK:
        return fd
    os.close(fd)
    raise ValueError("a layer is not a file with a tree behind its data")


def _close(layers: Iterable[Layer]) -> None:
    for layer in layers:
        os.close(layer.fd)
