# SPDX-License-Identifier: Apache-2.0
"""A file tree in memory, and its one and only serialisation as a cpio archive ("newc", as the kernel unpacks it)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from parma_wire.errors import AlreadyExists, Malformed, NotFound

_TRAILER: Final = "TRAILER!!!"
_ALIGNMENT: Final = 4


class Tree:
    """Files, folders and symbolic links by relative path. Everything is owned by root and dated 1970."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def file(self, path: str, data: bytes, *, executable: bool = False) -> None:
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._entries.setdefault(_checked(path), (stat.S_IFDIR | mode, b""))

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __getitem__(self, path: str) -> bytes:
        """Content of a file or target of a link."""
        return self._entries[path][1]

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        """``(path, st_mode, data)`` in byte order of the paths; a folder comes before what is in it."""
        for path in sorted(self._entries, key=lambda name: PurePosixPath(name).parts):
            yield path, *self._entries[path]

    def resolve(self, path: str) -> str:
        """``path`` with symbolic links followed, for files of this tree. NotFound when it leads nowhere."""
        current = path
        for _ in range(16):
            current = self._follow_parents(current)
            mode, data = self._entries.get(current, (0, b""))
            if stat.S_ISREG(mode):
                return current
            if not stat.S_ISLNK(mode):
                break
            current = _joined(current, data.decode())
        raise NotFound(f"nothing at {path} in the image")

    def _follow_parents(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        for count in range(1, len(parts)):
            parent = "/".join(parts[:count])
            mode, data = self._entries.get(parent, (0, b""))
            if stat.S_ISLNK(mode):
                return self._follow_parents("/".join((_joined(parent, data.decode()), *parts[count:])))
        return path

    def _add(self, path: str, mode: int, data: bytes) -> None:
        if _checked(path) in self._entries:
            raise AlreadyExists(f"{path} is in the image already")
        for parent in reversed(PurePosixPath(path).parents[:-1]):
            self.directory(str(parent))
        self._entries[path] = (mode, data)


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "/".join(parts) != path:
        raise Malformed(f"bad path {path!r}", expected="a relative path in its shortest form")
    return path


def _joined(link: str, target: str) -> str:
    """Where a link at ``link`` leads, as a relative path."""
    parts: list[str] = [] if target.startswith("/") else list(PurePosixPath(link).parent.parts)
    for part in PurePosixPath(target.lstrip("/")).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)


def archive(tree: Tree) -> bytes:
    """The tree as a cpio archive: the same tree always gives the same bytes."""
    out = bytearray()
    for inode, (path, mode, data) in enumerate(tree.entries(), 1):
        _member(out, inode, path, mode, data)
    _member(out, 0, _TRAILER, 0, b"")
    out += bytes(-len(out) % 512)
    return bytes(out)


def _member(out: bytearray, inode: int, path: str, mode: int, data: bytes) -> None:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % value for value in fields) + name
    out += bytes(-len(out) % _ALIGNMENT)
    out += data
    out += bytes(-len(out) % _ALIGNMENT)
