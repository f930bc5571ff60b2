# SPDX-License-Identifier: Apache-2.0
"""Reading one layer: its root hash, and what it does to the image's account files.

As a program (``python -m``) it does so for one request, a JSON line on standard input, and answers with JSON lines on
standard output: ``{"read": bytes of the blob so far}`` any number of times, then the facts, or the error.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from parma_policy.images import LayerFacts
from parma_policy.layers.blobs import LayerBlob, decompressed
from parma_wire.errors import Malformed, NotFound, ParmaError, Unavailable, Unsupported, Unverified

ACCOUNT_FILES: Final = ("etc/passwd", "etc/group")
_MAX_ACCOUNT_FILE: Final = 1 << 20
_REPORT_EVERY: Final = 8 << 20
_ERRORS: Final[Mapping[str, type[ParmaError]]] = {
    error.__name__: error for error in (Malformed, NotFound, Unavailable, Unsupported, Unverified)
}
"""Classes that come through from the process that reads a layer."""

Progress = Callable[[int], None]
"""Told the bytes of the blob that have been read."""


def facts_of(layer: LayerBlob, progress: Progress = lambda _read: None) -> LayerFacts:
    """Reads the layer twice. Raises Unverified when it is not the one that the image's configuration names."""
    from parma_policy.layers.convert import layer_to_image

    with _opened(layer, progress) as stream:
        image = layer_to_image(stream, None)
    if image.diff_id != layer.diff_id:
        message = f"a layer of the image has content {image.diff_id}, not what its configuration says"
        raise Unverified(message, expected=layer.diff_id)
    with layer.open() as stream:
        return LayerFacts(layer.diff_id, image.root_hash, account_files(stream))


def account_files(stream: BinaryIO) -> dict[str, bytes | None]:
    """What a layer's tar does to ``etc/passwd`` and ``etc/group``: the new contents, or None for a file removed."""
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            _take(found, tar, member)
    return found


def _take(found: dict[str, bytes | None], tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """One entry: a file, a whiteout, or anything in the file's place."""
    path = member.name.removeprefix("./").strip("/")
    if path in (".wh.etc", "etc/.wh..wh..opq", ".wh..wh..opq"):
        # Removes what lower layers have; files of this layer stay, wherever in it they stand.
        found.update({name: None for name in ACCOUNT_FILES if name not in found})
    for name in ACCOUNT_FILES:
        directory, _, base = name.rpartition("/")
        if path == f"{directory}/.wh.{base}":
            found.setdefault(name, None)
        elif path == name:
            file = tar.extractfile(member) if member.isreg() else None
            found[name] = file.read(_MAX_ACCOUNT_FILE) if file else b""


def to_json(facts: LayerFacts) -> dict[str, Any]:
    """For the cache and between processes."""
    accounts = {
        name: None if data is None else base64.b64encode(data).decode() for name, data in facts.accounts.items()
    }
    return {"diff_id": facts.diff_id, "root_hash": facts.root_hash, "accounts": accounts}


def from_json(document: Any, diff_id: str) -> LayerFacts:
    """The facts of ``diff_id``. Raises Malformed for anything else."""
    try:
        given: Mapping[str, str | None] = document["accounts"]
        accounts = {
            name: None if (data := given[name]) is None else base64.b64decode(data, validate=True)
            for name in ACCOUNT_FILES
            if name in given
        }
        root_hash = document["root_hash"]
        if document["diff_id"] != diff_id or len(bytes.fromhex(root_hash)) != 32:
            raise Malformed("facts of another layer")
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise Malformed("damaged facts of a layer") from None
    return LayerFacts(diff_id, root_hash, accounts)


def _opened(layer: LayerBlob, progress: Progress) -> BinaryIO:
    if layer.path is None:
        return layer.open()
    return decompressed(cast("BinaryIO", _Counted(layer.path, layer.offset, layer.size, progress)), layer.media_type)


class _Counted(io.RawIOBase):
    """A part of a file that reports how much of it was read; ``size`` -1 for all of it from ``offset`` on."""

    def __init__(self, path: Path, offset: int, size: int, progress: Progress) -> None:
        super().__init__()
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with this)
        except OSError as error:
            raise Unavailable(f"cannot read layer file {path}: {error.strerror}") from None
        self._file.seek(offset)
        self._left = size
        self._read = 0
        self._progress = progress

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = _REPORT_EVERY if size is None or size < 0 else size
        data = self._file.read(wanted if self._left < 0 else min(wanted, self._left)) or b""
        if self._left > 0:
            self._left -= len(data)
        before = self._read
        self._read += len(data)
        if self._read // _REPORT_EVERY != before // _REPORT_EVERY:
            self._progress(self._read)
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def request_for(layer: LayerBlob) -> str:
    """The line that asks a process of this module for a layer's facts."""
    return json.dumps(
        {
            "diff_id": layer.diff_id,
            "media_type": layer.media_type,
            "path": str(layer.path),
            "size": layer.size,
            "offset": layer.offset,
        }
    )


def answer_from(line: str, diff_id: str, progress: Progress) -> LayerFacts | None:
    """The facts in a line of an answer; None for one about progress. Raises the error that the line says."""
    try:
        answer = json.loads(line)
        if "read" in answer:
            progress(int(answer["read"]))
            return None
        if "error" in answer:
            error = _ERRORS.get(answer["class"], Unavailable)(str(answer["error"]))
        else:
            return from_json(answer, diff_id)
    except (ValueError, TypeError, KeyError):
        raise Unavailable("the process that reads a layer gave no sense", hint="this is a bug") from None
    raise error


def main() -> None:
    """See the module."""
    request = json.loads(sys.stdin.readline())
    layer = LayerBlob(
        request["diff_id"], "", request["media_type"], Path(request["path"]), request["size"], request["offset"]
    )

    def say(answer: object) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    try:
        say(to_json(facts_of(layer, lambda read: say({"read": read}))))
    except ParmaError as error:
        say({"error": str(error), "class": type(error).__name__})


if __name__ == "__main__":
    main()
