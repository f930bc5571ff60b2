# SPDX-License-Identifier: Apache-2.0
"""The host's files below one place: what is there, as cheaply as can be, and the files themselves.

Who may write there is often less privileged than the shim. So nothing is opened before it is known to be a regular
file (a device may act on being opened), links are followed only as long as they lead to what is mounted, and there is
a limit for everything. kubelet's volumes are read from the one version that ``..data`` leads to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from parma_wire.errors import NotFound, Unavailable, Unsupported
from parma_wire.limits import MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES

_CURRENT: Final = "..data"
_MAX_DEPTH: Final = 8
_MAX_ENTRIES: Final = 4 * MAX_FILES
"""Files and directories together."""
_ATTEMPTS: Final = 3
"""So often may a volume be replaced while it is read."""

Stamp = tuple[object, ...]
"""Differs when something has changed."""


class HostFile(NamedTuple):
    """A file to be copied; ``path`` is below the mount's source, empty where that is the file."""

    path: str
    mode: int
    uid: int
    gid: int
    data: bytes


def stamp(source: str) -> Stamp:
    """Of what is there, without reading any of it. Raises what `read` does."""
    with _failures(source):
        link = f"{source}/{_CURRENT}"
        with suppress(FileNotFoundError, NotADirectoryError):
            return (str(Path(link).readlink()), *_marks(os.lstat(link)))
        if not Path(source).is_dir():
            return _marks(os.stat(source))  # noqa: PTH116 - as the others here
        return tuple((path, *_marks(os.stat(f"{source}/{path}"))) for path in _paths(source))  # noqa: PTH116


def read(source: str) -> list[HostFile]:
    """The file, or the files below the directory. Raises NotFound, Unavailable, Unsupported."""
    for _ in range(_ATTEMPTS - 1):
        if not Path(source, _CURRENT).is_symlink():
            break
        with suppress(NotFound), _failures(source):
            return _read(source)
    with _failures(source):
        return _read(source)


@contextmanager
def _failures(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"there is no {error.filename} to mount") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Unavailable(f"cannot read {source}: {reason}") from error


def _read(source: str) -> list[HostFile]:
    if not Path(source).is_dir():
        return [_file(source, "", "")]
    root = os.path.realpath(source)
    directory = root
    if Path(root, _CURRENT).is_symlink():
        directory = os.path.realpath(f"{root}/{_CURRENT}")
        _require_below(root, directory, f"{source}/{_CURRENT}")
    files: list[HostFile] = []
    total = 0
    for path in _paths(directory):
        files.append(_file(f"{directory}/{path}", path, root))
        total += len(files[-1].data)
        if len(files) > MAX_FILES or total > MAX_FILES_BYTES:
            raise _too_many(source)
    return files


def _paths(directory: str) -> list[str]:
    """Of what is neither a directory nor one of kubelet's own names, in order."""
    found: list[str] = []
    seen = 0
    waiting = [("", _MAX_DEPTH)]
    while waiting:
        below, depth = waiting.pop()
        if depth < 0:
            raise Unsupported(f"{directory} cannot be mounted: its directories are too deep")
        with os.scandir(f"{directory}/{below}") as entries:
            for entry in entries:
                seen += 1
                if seen > _MAX_ENTRIES:
                    raise _too_many(directory)
                if entry.name.startswith(".."):
                    continue
                if entry.is_dir():
                    waiting.append((f"{below}{entry.name}/", depth - 1))
                else:
                    found.append(below + entry.name)
    return sorted(found)


def _file(place: str, path: str, root: str) -> HostFile:
    """The file at ``place``, which has to be below ``root`` unless that is empty."""
    handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        if root:
            _require_below(root, str(Path(f"/proc/self/fd/{handle}").readlink()), place)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Unsupported(f"{place} cannot be mounted: only regular files can be copied into the VM")
        data = b"" if found.st_size > MAX_FILE_BYTES else _contents(handle)
        if found.st_size > MAX_FILE_BYTES or len(data) > MAX_FILE_BYTES:
            raise Unsupported(f"{place} cannot be mounted: it is too large", expected=f"at most {MAX_FILE_BYTES} bytes")
        return HostFile(path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, data)
    finally:
        os.close(handle)


def _contents(handle: int) -> bytes:
    """Of what ``handle`` is, one byte more than allowed at most."""
    descriptor = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        data = b""
        while len(data) <= MAX_FILE_BYTES and (piece := file.read(MAX_FILE_BYTES + 1 - len(data))):
            data += piece
    return data


def _require_below(root: str, place: str, name: str) -> None:
    if not place.startswith(root.rstrip("/") + "/"):
        raise Unsupported(f"{name} cannot be mounted: it is a link that leads out of what is mounted")


def _marks(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _too_many(source: str) -> Unsupported:
    return Unsupported(
        f"{source} cannot be mounted: its files would be copied into the VM, and there are too many",
        expected=f"at most {MAX_FILES} files of {MAX_FILES_BYTES >> 20} MiB in all",
    )
