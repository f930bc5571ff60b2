# SPDX-License-Identifier: Apache-2.0
"""Images as policies need them: configuration, root hashes of the layers, account files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_policy.layers.blobs import LayerBlob


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of an image: its configuration (the ``config`` object of OCI's image-spec), the dm-verity root
    hashes of its layers, base first, and its account files."""

    config: Mapping[str, Any]
    layers: tuple[str, ...]
    passwd: bytes = b""
    group: bytes = b""
    name: str = ""

    def text(self, member: str) -> str:
        """A string of the configuration, empty where it has none. Raises Malformed."""
        value = self.config.get(member)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Malformed(f"the image's configuration has a wrong {member}", expected="a string")
        return value

    def texts(self, member: str) -> tuple[str, ...]:
        """A list of strings of the configuration. Raises Malformed."""
        value = self.config.get(member)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise Malformed(f"the image's configuration has a wrong {member}", expected="a list of strings")
        return tuple(value)

    def volumes(self) -> tuple[str, ...]:
        """Directories that the image declares as volumes, ascending. Raises Malformed."""
        value = self.config.get("Volumes") or {}
        if not isinstance(value, dict):
            raise Malformed("the image's configuration has a wrong Volumes", expected="an object")
        return tuple(sorted(value))

    def health_check(self) -> tuple[str, ...]:
        """``Healthcheck.Test`` of Docker's image configuration. Raises Malformed."""
        value = self.config.get("Healthcheck") or {}
        test = value.get("Test") if isinstance(value, dict) else None
        if test is None:
            return ()
        if not isinstance(test, list) or not all(isinstance(item, str) for item in test):
            raise Malformed("the image's configuration has a wrong Healthcheck", expected="a list of strings")
        return tuple(test)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image whose layers have been found and not yet read; base layer first."""

    config: Mapping[str, Any]
    layers: Sequence[LayerBlob]
    digests: tuple[str, ...] = ()
    """Those by which it may be named: of its index and its manifest."""
    where: str = ""


Hash = Callable[[Sequence["LayerBlob"]], "Sequence[LayerFacts]"]
"""Gives what a policy needs of each layer (``generate.hashing``)."""


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a policy needs of one layer. ``accounts`` has what it does to the account files: contents, or None for a
    file that it removes."""

    diff_id: str
    root_hash: str
    accounts: Mapping[str, bytes | None]


def in_archive(path: Path, name: str = "") -> StoredImage:
    """An image in a docker or OCI archive, or OCI layout directory; ``name`` says which where there are several.

    Raises the errors of ``layers``.
    """
    from parma_policy.layers import archive

    found = archive.image_in_archive(path, name)
    return StoredImage(found.config, found.layers, found.digests, str(path))


def in_containerd(address: str, namespace: str, name: str, *, timeout: float = 30) -> StoredImage:
    """An image in containerd's store. Raises the errors of ``layers``."""
    from parma_policy.layers import containerd

    config, layers, digests = containerd.resolve_image(address, namespace, name, timeout=timeout)
    return StoredImage(config, layers, digests, f"containerd at {address}")


def read(stored: StoredImage, name: str, hash_layers: Hash) -> Image:
    """The image with the root hashes of its layers. Raises Malformed, and what ``hash_layers`` raises."""
    runtime = stored.config.get("config") or {}
    if not isinstance(runtime, dict):
        raise Malformed("the image's configuration has no 'config' object")
    accounts = {"etc/passwd": b"", "etc/group": b""}
    facts = hash_layers(stored.layers)
    for layer in facts:
        accounts.update({path: data or b"" for path, data in layer.accounts.items()})
    hashes = tuple(layer.root_hash for layer in facts)
    return Image(runtime, hashes, accounts["etc/passwd"], accounts["etc/group"], name)
