# SPDX-License-Identifier: Apache-2.0
"""Where the images of a source come from: files that were named, containerd's store, a registry, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parma_policy import images
from parma_policy.generate.erofs import Reader
from parma_policy.generate.references import Reference
from parma_policy.generate.registry import Registry
from parma_policy.images import Image, StoredImage
from parma_policy.layers.archive import NotInArchive
from parma_wire.errors import NotFound, Unavailable, Unverified


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look for images."""

    named: Mapping[str, Path] = field(default_factory=dict)
    """Archives or layouts by the name under which a source uses them."""
    archives: Sequence[Path] = ()
    """Archives and layouts that are searched by the names in them."""
    containerd: str = ""
    """containerd's socket; empty: its store is not searched."""
    namespace: str = "default"
    pull: bool = False
    """Whether images that are nowhere else are fetched from their registry."""


class Library:
    """Finds and reads images, each once."""

    def __init__(self, places: Places, reader: Reader, registry: Registry | None = None) -> None:
        self._places = places
        self._reader = reader
        self._registry = registry or Registry()
        self._named = {str(Reference.parse(name)): path for name, path in places.named.items()}
        self._unused = dict(self._named)
        self._found: dict[str, Image] = {}

    def image(self, name: str) -> Image:
        """The image that a source calls ``name``.

        Raises NotFound where it is nowhere, Unverified when its digest is not the one in ``name``, and the errors of
        reading it.
        """
        reference = Reference.parse(name)
        key = str(reference)
        if key not in self._found:
            stored = self._find(reference)
            _check_digest(reference, stored)
            self._found[key] = images.read(stored, name, self._reader)
        return self._found[key]

    @property
    def has_archives(self) -> bool:
        """Whether archives to search were given."""
        return bool(self._places.archives)

    def archived(self, name: str = "") -> Image:
        """The image in the first archive: its only one, or the one that ``name`` stands for. Raises as ``image``."""
        path = self._places.archives[0]
        if not name:
            return images.read(images.in_archive(path), name, self._reader)
        reference = Reference.parse(name)
        stored = _in_archive(path, reference) or images.in_archive(path, name)  # the latter says what there is
        _check_digest(reference, stored)
        return images.read(stored, name, self._reader)

    def check_all_used(self) -> None:
        """Raises NotFound for a file that was given for a name which no source uses."""
        if self._unused:
            raise NotFound(f"--image {next(iter(self._unused))}=...: no container uses an image of this name")

    def close(self) -> None:
        """Removes what was fetched."""
        self._registry.close()

    def _find(self, reference: Reference) -> StoredImage:
        named = self._named.get(str(reference))
        if named is not None:
            self._unused.pop(str(reference), None)
            return _in_named_file(named, reference)
        tried = []
        for archive in self._places.archives:
            found = _in_archive(archive, reference)
            if found is not None:
                return found
            tried.append(str(archive))
        if self._places.containerd:
            found = self._in_containerd(reference)
            if found is not None:
                return found
            tried.append(f"containerd at {self._places.containerd}")
        if self._places.pull:
            layout = self._registry.fetch(reference)
            stored = images.in_archive(layout)
            return StoredImage(stored.config, stored.layers, stored.digests, f"the registry {reference.host}")
        hint = f"name a file with --image {reference}=FILE or --image-archive FILE, or say --pull to fetch it"
        raise NotFound(f"image {reference} is not there (looked in: {', '.join(tried) or 'nothing'})", hint=hint)

    def _in_containerd(self, reference: Reference) -> StoredImage | None:
        from parma_policy.layers.containerd import NoSuchImage

        places = self._places
        for name in reference.spellings():
            try:
                return images.in_containerd(places.containerd, places.namespace, name)
            except NoSuchImage:
                continue
            except Unavailable:
                if places.archives or places.named or places.pull:
                    return None  # there are other places
                raise
        return None


def _in_named_file(path: Path, reference: Reference) -> StoredImage:
    """The file's image of that name, or its only one."""
    return _in_archive(path, reference) or images.in_archive(path)


def _in_archive(path: Path, reference: Reference) -> StoredImage | None:
    if not path.exists():
        raise NotFound(f"image archive {path} does not exist")
    for name in (*reference.spellings(), *([reference.digest] if reference.digest else [])):
        try:
            return images.in_archive(path, name)
        except NotInArchive:
            continue
    return None


def _check_digest(reference: Reference, stored: StoredImage) -> None:
    if not reference.digest:
        return
    if not stored.digests:
        hint = "docker save does not keep digests: use an OCI archive or layout, or containerd's store"
        raise Unverified(f"{stored.where} cannot show that its image is {reference.digest}", hint=hint)
    if reference.digest not in stored.digests:
        raise Unverified(
            f"the image {reference.host}/{reference.path} in {stored.where} has another digest than the source says",
            expected=reference.digest,
            hint=f"it has {', '.join(dict.fromkeys(stored.digests))}",
        )
