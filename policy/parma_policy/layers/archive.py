# SPDX-License-Identifier: Apache-2.0
"""Images on disk: ``docker save`` archives, OCI archives, and OCI layout directories."""

from __future__ import annotations

import posixpath
import tarfile
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from parma_policy.layers import manifests
from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.manifests import MAX_DOCUMENT, PLATFORM, Descriptor, Document
from parma_wire.errors import Malformed, NotFound, Unavailable, Unsupported

_MAX_LINKS: Final = 8
_MARKS: Final = str.maketrans("", "", ",()")

T = TypeVar("T")


class NotInArchive(NotFound):
    """The archive is there, and an image of this name is not in it."""


class _Place(NamedTuple):
    """Where a file of the image is."""

    path: Path
    offset: int
    size: int


class _Files(Protocol):
    def find(self, name: str) -> _Place | None: ...


class ArchiveImage(NamedTuple):
    """An image in an archive; layers base first."""

    config: Document
    layers: list[LayerBlob]
    digests: tuple[str, ...]
    """Of its index, if it has one, and its manifest; none in an archive of ``docker save``."""


def image_archive_layers(path: Path, image: str = "") -> tuple[Document, list[LayerBlob]]:
    """The configuration and the layers (base first) of the image in an archive; see ``image_in_archive``."""
    found = image_in_archive(path, image)
    return found.config, found.layers


def image_in_archive(path: Path, image: str = "") -> ArchiveImage:
    """The image in an archive or layout directory.

    ``image`` chooses by name or digest where there are several. Layers are not copied: they are read from where they
    are. Raises NotFound, Malformed, Unsupported, Unverified (a blob is not what its name says), Unavailable.
    """
    path = Path(path)
    try:
        files: _Files = _Directory(path) if path.is_dir() else _Archive(path)
        if files.find("index.json") is not None:
            return _oci(files, image)
        if files.find("manifest.json") is not None:
            return _docker(files, image)
    except FileNotFoundError:
        raise NotFound(f"image archive {path} does not exist") from None
    except OSError as error:
        raise Unavailable(f"cannot read image archive {path}: {error.strerror}") from None
    raise Malformed(f"{path} holds no image", expected="index.json (OCI) or manifest.json (docker save)")


def _oci(files: _Files, image: str) -> ArchiveImage:
    index = manifests.parse(_read(files, "index.json"), "index.json")
    listed = [item for item in manifests.descriptors(index, "manifests") if item.platform in (None, PLATFORM)]
    target = _choose({f"{item.name} ({item.digest})": item for item in listed}, image)

    def read(descriptor: Descriptor) -> bytes:
        return _read(files, _blob_name(descriptor.digest))

    found = next(manifests.images(target, read))
    layers = []
    for layer, diff_id in zip(found.layers, found.diff_ids, strict=True):
        place = _locate(files, _blob_name(layer.digest))
        layers.append(LayerBlob(diff_id, layer.digest, layer.media_type, place.path, place.size, place.offset))
    return ArchiveImage(found.config, layers, (target.digest, found.digest))


def _docker(files: _Files, image: str) -> ArchiveImage:
    # The file is a list, which ``parse`` does not take.
    listed = manifests.parse(b'{"images": %b}' % _read(files, "manifest.json"), "manifest.json")["images"]
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise Malformed("manifest.json is not a list of images")
    names = {", ".join(map(str, item.get("RepoTags") or ())) or f"image {n}": item for n, item in enumerate(listed)}
    chosen = _choose(names, image)
    config = manifests.parse(_read(files, str(chosen.get("Config"))), "the image's configuration")
    diff_ids = manifests.diff_ids_of(config)
    platform = (config.get("os"), config.get("architecture"))
    if platform != PLATFORM:
        raise Unsupported(f"the image is for {platform[0]}/{platform[1]}", expected="/".join(PLATFORM))
    listed_layers = chosen.get("Layers") or []
    if not isinstance(listed_layers, list) or len(listed_layers) != len(diff_ids):
        raise Malformed("manifest.json and the image's configuration list different numbers of layers")
    layers = []
    for name, diff_id in zip(listed_layers, diff_ids, strict=True):
        place = _locate(files, str(name))
        layers.append(LayerBlob(diff_id, "", "", place.path, place.size, place.offset))
    return ArchiveImage(config, layers, ())


def _choose(images: dict[str, T], name: str) -> T:
    """The only image, or the one whose label contains ``name`` as a word."""
    matching = {label: image for label, image in images.items() if not name or name in label.translate(_MARKS).split()}
    if len(matching) == 1:
        return next(iter(matching.values()))
    labels = "; ".join(images) or "none"
    if not matching:
        what = f"image {name!r}" if name else "an image"
        raise NotInArchive(f"the archive does not hold {what}", hint=f"it holds: {labels}")
    raise Malformed("the archive holds several images, so one must be named", expected=f"one of: {labels}")


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _locate(files: _Files, name: str) -> _Place:
    place = files.find(name)
    if place is None:
        raise NotFound(f"the image archive lacks {name}")
    return place


def _read(files: _Files, name: str) -> bytes:
    place = _locate(files, name)
    if place.size > MAX_DOCUMENT:
        raise Malformed(f"{name} is too large")
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


class _Directory:
    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def find(self, name: str) -> _Place | None:
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root) or not path.is_file():
            return None
        return _Place(path, 0, path.stat().st_size)


class _Archive:
    """The members of an uncompressed tar; links between them are followed, as old ``docker save`` writes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tarfile.open(path, "r:") as tar:
                self._members = {posixpath.normpath(member.name): member for member in tar}
        except (tarfile.TarError, ValueError, OverflowError) as error:  # sizes and times that no integer of C holds
            raise Malformed(f"{path} is not an uncompressed tar archive: {error}") from None
        if any(member.size < 0 for member in self._members.values()):
            raise Malformed(f"{path} has a member of negative size")

    def find(self, name: str) -> _Place | None:
        name = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                return None
            if member.isreg():
                return _Place(self._path, member.offset_data, member.size)
            if member.issym():
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                name = posixpath.normpath(member.linkname)
            else:
                return None
        return None
