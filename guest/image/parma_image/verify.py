# SPDX-License-Identifier: Apache-2.0
"""Checks an image against its manifest: the files, what is in the initrd, and the measurements."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from parma_image import cpio, lz4, measure
from parma_image.manifest import Artefact, Manifest, list_files, load
from parma_wire.errors import Malformed


def verify_image(directory: Path) -> list[str]:
    """One line for each difference between the image and its manifest; none when they belong together.

    Raises NotFound or Malformed when there is no manifest that can be read.
    """
    manifest = load(directory)
    found = list(_files(directory, manifest))
    if found:
        return found
    found += _contents(directory, manifest)
    paths = [directory / artefact.file for artefact in (manifest.firmware, manifest.kernel, manifest.initrd)]
    if measure.table(paths[0], paths[1], paths[2], manifest.cmdline) != manifest.measurements:
        found.append("the measurements are not those of these files")
    return found


def _files(directory: Path, manifest: Manifest) -> Iterator[str]:
    for artefact in (manifest.kernel, manifest.initrd, manifest.firmware):
        try:
            if Artefact.of(directory / artefact.file) != artefact:
                yield f"{artefact.file} is not the file that the manifest describes"
        except OSError as error:
            yield f"{artefact.file}: {error.strerror}"


def _contents(directory: Path, manifest: Manifest) -> Iterator[str]:
    try:
        tree = cpio.read(lz4.decompress((directory / manifest.initrd.file).read_bytes()))
    except Malformed as error:
        yield f"{manifest.initrd.file}: {error}"
        return
    listed = {entry.path: entry for entry in manifest.files}
    present = {entry.path: entry for entry in list_files(tree)}
    for path in sorted(listed.keys() | present.keys()):
        if listed.get(path) != present.get(path):
            yield f"/{path} in the initrd is not what the manifest lists"
    for path, mode, _ in tree.entries():
        if mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"/{path} is setuid or setgid"
