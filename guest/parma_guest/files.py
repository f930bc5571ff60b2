# SPDX-License-Identifier: Apache-2.0
"""Files that the host has sent, as they are written: below one directory, following no link, each as a whole.

::

    a volume of Kubernetes      ..parma-2/colour      written, then
                                ..data -> ..parma-2   renamed into place: all files change at once
                                colour -> ..data/colour
    any other directory         colour                each file renamed into place by itself
    a file mounted by itself    colour                overwritten: containers have this very file

The first is the layout of kubelet's own (``pkg/volume/util/atomic_writer.go``), which software that waits for changes
knows: it looks at ``..data``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, Protocol

from parma_wire.errors import Malformed

ORIGIN: Final = "user.parma.origin"
CURRENT: Final = "..data"
_OWN: Final = ".."
"""What the names of the layout's own begin with; kubelet has no keys like that either."""


class File(NamedTuple):
    """A file, by its path below the source; empty where the source is the file."""

    path: str
    mode: int
    uid: int
    gid: int
    data: bytes

    @property
    def sha256(self) -> str:
        """In hex."""
        return hashlib.sha256(self.data).hexdigest()


class FileSystem(Protocol):
    """What is needed of the guest's."""

    def prepare_bind(self, base: str, source: str) -> None:
        """Makes directories down to ``source``, following no link."""

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` below ``root``, following no link."""


class Tree:
    """What is below ``base``. All methods raise OSError, and `Malformed` where something is not what it was."""

    def __init__(self, system: FileSystem, base: str) -> None:
        self._system = system
        self._base = base
        self._numbers = itertools.count()

    def put(self, source: str, files: Sequence[File], before: Sequence[File]) -> None:
        """Plain files, in the place of those ``before``."""
        for file in files:
            place = f"{source}/{file.path}" if file.path else source
            if before and not file.path:
                self._overwrite(place, file)
            else:
                self._place(place, file)
        if not files:
            self._system.prepare_bind(self._base, self._base + source)
        kept = {file.path for file in files}
        for gone in (file.path for file in before if file.path not in kept):
            self._remove(f"{source}/{gone}")

    def put_volume(self, source: str, files: Sequence[File], before: Sequence[File], version: str) -> str:
        """All of them at once, in the place of ``before``, which the directory ``version`` has (empty: none).

        Returns the new directory's name. When it fails, the old files are where they were.
        """
        if any(file.path.startswith(_OWN) for file in files):
            raise Malformed("names in such a volume do not begin with '..'")
        self._system.prepare_bind(self._base, self._base + source)
        with self._directory(source) as directory:
            made = f"{_OWN}parma-{next(self._numbers)}"
            os.mkdir(made, mode=0o755, dir_fd=directory)
            old, new = _heads(before), _heads(files)
            linked: list[str] = []
            try:
                for file in files:
                    self._place(f"{source}/{made}/{file.path}", file)
                for name in new - old:
                    self._link(directory, f"{CURRENT}/{name}", name)
                    linked.append(name)
                self._link(directory, made, CURRENT)
            except BaseException:
                _unlink(directory, linked)
                self._discard(source, directory, made, files)
                raise
            _unlink(directory, old - new)
            if version:
                self._discard(source, directory, version, before)
        return made

    def _place(self, place: str, file: File) -> None:
        """A new file, which takes the place of what is there: nobody reads half of each."""
        parent, _, name = place.rpartition("/")
        self._system.prepare_bind(self._base, self._base + parent)
        with self._directory(parent) as directory:
            temporary = f".parma-{next(self._numbers)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
            try:
                _fill(descriptor, file)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)

    def _overwrite(self, place: str, file: File) -> None:
        descriptor = self._system.open_beneath(self._base, place.lstrip("/"), os.O_WRONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Malformed("what was a file is one no longer")
            os.ftruncate(descriptor, 0)
            _fill(descriptor, file)
        finally:
            os.close(descriptor)

    def _link(self, directory: int, target: str, name: str) -> None:
        temporary = f".parma-{next(self._numbers)}"
        os.symlink(target, temporary, dir_fd=directory)
        try:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise

    def _remove(self, place: str) -> None:
        parent, _, name = place.rpartition("/")
        with suppress(FileNotFoundError), self._directory(parent) as directory:
            os.unlink(name, dir_fd=directory)

    def _discard(self, source: str, directory: int, version: str, files: Sequence[File]) -> None:
        """As much of it as can be: what containers have added there stays, and is theirs."""
        for file in files:
            with suppress(OSError):
                self._remove(f"{source}/{version}/{file.path}")
        for path in sorted(_directories(files), key=len, reverse=True):
            with suppress(OSError), self._directory(f"{source}/{version}/{path}".rpartition("/")[0]) as parent:
                os.rmdir(path.rpartition("/")[2], dir_fd=parent)
        with suppress(OSError):
            os.rmdir(version, dir_fd=directory)

    @contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY
        descriptor = self._system.open_beneath(self._base, path.lstrip("/") or ".", flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def prefixes(path: str) -> list[str]:
    """The path and its parents, but for the empty one."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _heads(files: Iterable[File]) -> set[str]:
    return {file.path.partition("/")[0] for file in files}


def _directories(files: Iterable[File]) -> set[str]:
    return {parent for file in files for parent in prefixes(file.path)[:-1]}


def _unlink(directory: int, names: Iterable[str]) -> None:
    for name in names:
        with suppress(OSError):  # whatever a container has put there
            os.unlink(name, dir_fd=directory)


def _fill(descriptor: int, file: File) -> None:
    view = memoryview(file.data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchown(descriptor, file.uid, file.gid)
    os.fchmod(descriptor, file.mode)
    with suppress(OSError):  # for whoever looks; nothing depends on it
        os.setxattr(descriptor, ORIGIN, b"host")
