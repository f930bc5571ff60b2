# SPDX-License-Identifier: Apache-2.0
"""Why a layer could not be converted."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from parma_wire.errors import Malformed


class Kind(StrEnum):
    """Short classes of conversion errors. A layer with any of them has no root hash."""

    TAR_HEADER = "tar-header"
    TAR_TRUNCATED = "tar-truncated"
    NAME_TOO_LONG = "name-too-long"
    PATH_NOT_FOUND = "path-not-found"
    DIR_REPLACED = "dir-replaced"
    FILE_REPLACED_BY_DIR = "file-replaced-by-dir"
    DATA_OVERWRITTEN = "data-overwritten"
    LINK_ORPHANS = "link-orphans"
    LINK_TO_DIR = "link-to-dir"
    LINK_TARGET_MISSING = "link-target-missing"
    TOO_MANY_LINKS = "too-many-links"
    XATTR_TOO_BIG = "xattr-too-big"
    FILE_TOO_BIG = "file-too-big"
    DISK_TOO_BIG = "disk-too-big"


class LayerError(Malformed):
    """The layer's tar is damaged, or describes a file system that cannot be built."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Final = kind


def printable(name: bytes) -> str:
    """A path from a tar as one short line of text, whatever bytes it holds."""
    text = name.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return repr(text if len(text) <= 120 else text[:117] + "...")
