# SPDX-License-Identifier: Apache-2.0
"""Image indexes, manifests and configurations, of Docker and OCI, down to the diffIDs of the layers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from parma_policy.layers.blobs import check_media_type
from parma_wire.errors import Malformed, NotFound, ParmaError, Unsupported, Unverified

MAX_DOCUMENT: Final = 8 << 20
"""Largest index, manifest or configuration, in bytes."""

PLATFORM: Final = ("linux", "amd64")

_DIGEST: Final = re.compile("sha256:[0-9a-f]{64}", re.ASCII)
_INDEX_TYPES: Final = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
_MANIFEST_TYPES: Final = frozenset(
    ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
)
_MAX_DEPTH: Final = 3
_MAX_LAYERS: Final = 1000

Document: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Descriptor:
    """A pointer to a blob."""

    media_type: str
    digest: str
    size: int
    platform: tuple[str, str] | None = None
    name: str = ""
    """The image's name, in the index of an archive."""


ReadBlob: TypeAlias = Callable[[Descriptor], bytes]
"""Gives a small blob's bytes, not necessarily checked; NotFound when it is not there."""


@dataclass(frozen=True)
class ImageManifest:
    """One image for one platform."""

    config: Document
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    digest: str = ""
    """Of the manifest."""


def check_digest(digest: object) -> str:
    """The digest if it is a well-formed SHA-256 one; Malformed otherwise."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise Malformed(f"{digest!r} is not a digest", expected="sha256: and 64 lower-case hexadecimal digits")
    return digest


def chain_id(diff_ids: Sequence[str]) -> str:
    """What containerd calls the snapshot that holds these layers; empty for none."""
    chain = ""
    for diff_id in diff_ids:
        chain = f"{chain} {diff_id}" if chain else diff_id
        if " " in chain:
            chain = "sha256:" + hashlib.sha256(chain.encode()).hexdigest()
    return chain


def images(target: Descriptor, read: ReadBlob) -> Iterator[ImageManifest]:
    """The images for our platform below a descriptor, in the order of the index.

    Raises NotFound when there is none (or the content of none is there), Unsupported for image formats without a
    manifest, Unverified when a blob is not the one it is named after, Malformed for documents that make no sense.
    """
    missing: list[ParmaError] = []
    found = False
    for image in _walk(target, read, missing, 0):
        found = True
        yield image
    if not found:
        if missing:
            raise missing[0]
        raise NotFound(f"the image has no manifest for {'/'.join(PLATFORM)}")


def _walk(target: Descriptor, read: ReadBlob, missing: list[ParmaError], depth: int) -> Iterator[ImageManifest]:
    try:
        document = read_document(target, read)
        media_type = document.get("mediaType") or target.media_type
        if media_type in _INDEX_TYPES or (media_type not in _MANIFEST_TYPES and "manifests" in document):
            if depth >= _MAX_DEPTH:
                raise Malformed("image indexes are nested too deeply")
            for descriptor in descriptors(document, "manifests"):
                if descriptor.platform in (None, PLATFORM):
                    yield from _walk(descriptor, read, missing, depth + 1)
            return
        if media_type not in _MANIFEST_TYPES and not ("config" in document and "layers" in document):
            raise Unsupported(f"an image of type {media_type or 'unknown'!r} is not supported", expected="a manifest")
        image = _manifest(document, read, target.digest)
    except NotFound as error:
        missing.append(error)
        return
    if image is not None:
        yield image


def _manifest(document: Document, read: ReadBlob, digest: str) -> ImageManifest | None:
    """The image of a manifest, or None when it is for another platform."""
    config = read_document(_descriptor(document.get("config")), read)
    if (config.get("os"), config.get("architecture")) != PLATFORM:
        return None
    layers = descriptors(document, "layers")
    diff_ids = diff_ids_of(config)
    if len(layers) != len(diff_ids):
        raise Malformed(f"the image has {len(layers)} layers, but its configuration lists {len(diff_ids)}")
    for layer in layers:
        check_media_type(layer.media_type)
    return ImageManifest(config, layers, diff_ids, digest)


def diff_ids_of(config: Document) -> tuple[str, ...]:
    """``rootfs.diff_ids`` of an image configuration."""
    root = config.get("rootfs")
    listed = root.get("diff_ids") if isinstance(root, dict) else None
    if listed is None:
        listed = []
    if not isinstance(listed, list) or len(listed) > _MAX_LAYERS:
        raise Malformed("the image's configuration does not list its layers")
    return tuple(check_digest(diff_id) for diff_id in listed)


def read_document(target: Descriptor, read: ReadBlob) -> Document:
    """A blob as a JSON object, its digest checked."""
    data = read(target)
    if "sha256:" + hashlib.sha256(data).hexdigest() != target.digest:
        raise Unverified(f"blob {target.digest} has other contents than its name says")
    return parse(data, target.digest)


def parse(data: bytes, what: str) -> Document:
    """JSON bytes as an object; Malformed otherwise."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed(f"{what} is not a JSON object")
    return document


def descriptors(document: Document, key: str) -> tuple[Descriptor, ...]:
    """The list of descriptors under a key."""
    listed = document.get(key)
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > _MAX_LAYERS:
        raise Malformed(f"an image document's {key!r} is not a list of descriptors")
    return tuple(_descriptor(item) for item in listed)


def _descriptor(item: object) -> Descriptor:
    if not isinstance(item, dict):
        raise Malformed("an image document has no descriptor where one belongs")
    size = item.get("size")
    platform = item.get("platform")
    annotations = item.get("annotations") or {}
    if not isinstance(size, int) or size < 0 or not isinstance(annotations, dict):
        raise Malformed("an image document has a malformed descriptor")
    return Descriptor(
        media_type=str(item.get("mediaType") or ""),
        digest=check_digest(item.get("digest")),
        size=size,
        platform=(str(platform.get("os")), str(platform.get("architecture"))) if isinstance(platform, dict) else None,
        name=str(
            annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or ""
        ),
    )
