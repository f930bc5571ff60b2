# SPDX-License-Identifier: Apache-2.0
"""Files of the host that containers mount: read here, handed to the guest, and handed over again when they change.

Only regular files, few and small, are copied: what changes all the time, or is a socket, or a file system, cannot be
had by copying. kubelet writes volumes so that a link leads to the current files: links are followed, on this side.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from parma_shim.host_mounts import HostMount
from parma_wire.errors import NotFound, ParmaError, Unavailable, Unsupported
from parma_wire.limits import MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES

_MAX_DEPTH: Final = 8
Log = Callable[[str], None]


class HostFile(NamedTuple):
    """A file to be copied; ``path`` is below the mount's source, empty where that is the file."""

    path: str
    mode: int
    uid: int
    gid: int
    data: bytes


class FilePort(Protocol):
    """What is needed of the guest."""

    def provide_files(
        self, container_id: str, source: str, files: Iterable[HostFile], *, update: bool, deadline: float | None = None
    ) -> None: ...


class _Given(NamedTuple):
    container: str
    mount: HostMount
    files: tuple[HostFile, ...]


class HostFiles:
    """What one VM was given. ``provide`` is for one thread at a time; `close` for any.

    Lock contract: ``_lock`` guards ``_given``, and is held while the guest is asked, so that two rounds never mix.
    """

    def __init__(self, guest: FilePort, *, interval: float, log: Log) -> None:
        """``interval``: seconds between two looks at what may have changed; 0 for none."""
        self._guest: Final = guest
        self._interval: Final = interval
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._given: dict[str, _Given] = {}
        self._closed: Final = threading.Event()
        self._watcher: threading.Thread | None = None

    def provide(self, mounts: Iterable[HostMount], container: str, *, deadline: float) -> None:
        """Those that the guest does not have as they are now. Raises what went wrong."""
        for mount in mounts:
            files = (HostFile("", 0o666, 0, 0, b""),) if mount.is_empty else tuple(read(mount.source))
            with self._lock:
                self._give(_Given(container, mount, files), deadline)
        if self._given and self._watcher is None and self._interval:
            self._watcher = threading.Thread(target=self._watch, name="files", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """No more looking. Idempotent; does not wait."""
        self._closed.set()

    def look(self) -> None:
        """Hand over what has changed. What the guest refuses is logged, and not tried again before it changes."""
        for place, known in list(self._given.items()):
            if known.mount.is_empty:
                continue
            try:
                files = tuple(read(known.mount.source))
            except ParmaError:
                continue  # gone with its container, or about to be replaced
            with self._lock:
                if files == self._given[place].files:
                    continue
                try:
                    self._give(known._replace(files=files), None)
                except ParmaError as error:
                    self._given[place] = known._replace(files=files)
                    self._log(f"changed files are not handed over to {place}: {error}")

    def _give(self, wanted: _Given, deadline: float | None) -> None:
        place = wanted.mount.place
        known = self._given.get(place)
        if known is None or known.files != wanted.files:
            self._guest.provide_files(
                wanted.container, place, wanted.files, update=known is not None, deadline=deadline
            )
            self._given[place] = wanted

    def _watch(self) -> None:
        while not self._closed.wait(self._interval):
            self.look()


def read(source: str) -> list[HostFile]:
    """The file, or the files below the directory. Raises NotFound, Unavailable, Unsupported."""
    try:
        if not Path(source).is_dir():
            return [_read(source, "")]
        files: list[HostFile] = []
        for path in _paths(source, "", _MAX_DEPTH):
            files.append(_read(f"{source}/{path}", path))
            if len(files) > MAX_FILES or sum(len(file.data) for file in files) > MAX_FILES_BYTES:
                raise Unsupported(
                    f"{source} cannot be mounted: its files would be copied into the VM, and there are too many",
                    expected=f"at most {MAX_FILES} files of {MAX_FILES_BYTES >> 20} MiB in all",
                )
    except FileNotFoundError as error:
        raise NotFound(f"there is no {error.filename} to mount") from error
    except OSError as error:
        raise Unavailable(f"cannot read {error.filename}: {error.strerror}") from error
    return files


def _paths(directory: str, below: str, depth: int) -> Iterator[str]:
    """Of what is neither a directory nor one of kubelet's own names, ``..data`` and what it leads to."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith(".."):
            continue
        if not entry.is_dir():
            yield below + entry.name
        elif depth:
            yield from _paths(entry.path, f"{below}{entry.name}/", depth - 1)
        else:
            raise Unsupported(f"{directory} cannot be mounted: its directories are too deep")


def _read(source: str, path: str) -> HostFile:
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Unsupported(f"{source} cannot be mounted: only regular files can be copied into the VM")
        if found.st_size > MAX_FILE_BYTES:
            raise Unsupported(
                f"{source} cannot be mounted: it is too large", expected=f"at most {MAX_FILE_BYTES} bytes"
            )
        data = os.read(descriptor, MAX_FILE_BYTES)
        return HostFile(path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, data)
    finally:
        os.close(descriptor)
