# SPDX-License-Identifier: Apache-2.0
"""Layer blobs as registries deliver them, and their uncompressed tars."""

from __future__ import annotations

import importlib
import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from parma_wire.errors import Malformed, NotFound, Unavailable, Unsupported

_PIECE: Final = 256 * 1024
_LAYER_TYPE: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer|docker\.image\.rootfs)\.[a-z0-9.]*tar([.+](gzip|zstd))?", re.ASCII
)
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ANY_WRAPPER: Final = 31  # zlib: expect a gzip header and trailer
_ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")
"""Python's own from 3.14 on, and the same for older ones."""


@dataclass(frozen=True)
class LayerBlob:
    """One layer of an image, still in the form in which it is stored."""

    diff_id: str
    """``sha256:<hex>`` of the uncompressed tar, from the image's configuration."""
    digest: str
    """``sha256:<hex>`` of the blob as stored; empty where that is not known."""
    media_type: str
    path: Path | None
    """The file that holds the blob, or None when it can only be read through ``opener``."""
    size: int
    """Bytes of the blob; -1 where that is not known."""
    offset: int = 0
    """Where in ``path`` the blob starts."""
    opener: Callable[[], BinaryIO] | None = field(default=None, compare=False, repr=False)

    def open(self) -> BinaryIO:
        """The uncompressed tar as a stream. NotFound, Unavailable or Unsupported when that is not possible."""
        if self.path is None:
            if self.opener is None:
                raise NotFound(f"layer {self.digest or self.diff_id} has no source")
            return decompressed(self.opener(), self.media_type)
        return open_blob(self.path, self.media_type, offset=self.offset, size=self.size)


def check_media_type(media_type: str) -> None:
    """Unsupported for what is no layer tar, or an encrypted one. An empty type is taken for a layer."""
    if "+encrypted" in media_type:
        raise Unsupported(f"encrypted image layers are not supported ({media_type})")
    if media_type and not _LAYER_TYPE.fullmatch(media_type):
        raise Unsupported(f"an image layer of type {media_type!r} cannot be converted", expected="a tar layer")


def open_blob(path: Path, media_type: str = "", *, offset: int = 0, size: int = -1) -> BinaryIO:
    """Open a stored layer as a stream of its uncompressed tar.

    Whether and how it is compressed is seen from its first bytes: media types are not always right, and the diffID
    decides in the end whether the tar is the one meant. Reading raises Malformed when the compressed data is damaged.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the returned stream)
    except FileNotFoundError:
        raise NotFound(f"layer file {path} does not exist") from None
    except OSError as error:
        raise Unavailable(f"cannot read layer file {path}: {error.strerror}") from None
    file.seek(offset)
    return decompressed(cast("BinaryIO", _Section(file, size)), media_type)


def decompressed(blob: BinaryIO, media_type: str = "") -> BinaryIO:
    """The uncompressed contents of ``blob``, which is closed with the returned stream."""
    try:
        check_media_type(media_type)
        head = _head(blob)
        if head.startswith(_ZSTD):
            return cast("BinaryIO", _ZstdStream(_Prefixed(head, blob)))
        stream = _GzipStream(head, blob) if head.startswith(_GZIP) else _Prefixed(head, blob)
    except BaseException:
        blob.close()
        raise
    return cast("BinaryIO", stream)


def _head(blob: BinaryIO) -> bytes:
    head = b""
    while len(head) < len(_ZSTD) and (more := blob.read(len(_ZSTD) - len(head))):
        head += more
    return head


class _Stream(io.RawIOBase):
    """A read-only stream over another one. ``read(n)`` answers with at most n bytes, none only at the end."""

    def __init__(self, source: io.RawIOBase | BinaryIO) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def _some(self, size: int) -> bytes:
        raise NotImplementedError

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return self._some(size) if size else b""
        pieces = []
        while piece := self._some(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


class _Section(_Stream):
    """At most ``size`` bytes (-1: all) of a file, from its current position."""

    def __init__(self, source: io.RawIOBase, size: int) -> None:
        super().__init__(source)
        self._left = size

    def _some(self, size: int) -> bytes:
        wanted = size if self._left < 0 else min(size, self._left)
        try:
            data = self._source.read(wanted) or b""
        except OSError as error:
            raise Unavailable(f"cannot read a layer: {error.strerror}") from None
        if self._left > 0:
            self._left -= len(data)
        return data


class _Prefixed(_Stream):
    """Bytes already read, then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__(rest)
        self._head = head

    def _some(self, size: int) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        if len(data) < size:
            data += self._source.read(size - len(data)) or b""
        return data


class _GzipStream(_Stream):
    """gzip with any number of members; memory is bounded whatever the ratio."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__(rest)
        self._input = head
        self._member = zlib.decompressobj(_ANY_WRAPPER)
        self._fresh = True  # nothing of the current member has been read yet
        self._output = b""

    def _some(self, size: int) -> bytes:
        if not self._output:
            # Not less at a time: each call copies what is left of its input.
            self._output = self._inflate(max(size, _PIECE))
        data, self._output = self._output[:size], self._output[size:]
        return data

    def _inflate(self, size: int) -> bytes:
        while True:
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = zlib.decompressobj(_ANY_WRAPPER)
                self._fresh = True
            if not self._input:
                self._input = self._source.read(_PIECE) or b""
                if not self._input:
                    if self._fresh:
                        return b""
                    raise Malformed("a gzip-compressed layer is cut short")
            if self._fresh:
                # Some writers pad the last member with zeros.
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
            try:
                data = self._member.decompress(self._input, size)
            except zlib.error as error:
                raise Malformed(f"a gzip-compressed layer is damaged: {error}") from None
            self._fresh = False
            self._input = self._member.unconsumed_tail
            if data:
                return data


class _ZstdStream(_Stream):
    """zstd with any number of frames, those included that carry no data (as eStargz and zstd:chunked have them).

    Memory is bounded by the library's limit of a window, 128 MiB.
    """

    def __init__(self, source: _Prefixed) -> None:
        super().__init__(source)
        self._library = _zstd_library()
        self._tar: BinaryIO = self._library.open(source, "rb")

    def _some(self, size: int) -> bytes:
        try:
            return self._tar.read(size)
        except EOFError:
            raise Malformed("a zstd-compressed layer is cut short") from None
        except self._library.ZstdError as error:
            raise Malformed(f"a zstd-compressed layer is damaged: {error}") from None


def _zstd_library() -> Any:
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise Unsupported(
        "this layer is compressed with zstd, and Python has no library for it",
        hint="pip install backports.zstd (parma[policy] and parma[shim] include it)",
    )
