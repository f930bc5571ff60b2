# SPDX-License-Identifier: Apache-2.0
"""A file tree in memory, and its one and only serialisation as a cpio archive ("newc", as the kernel unpacks it)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from parma_wire.errors import AlreadyExists, Malformed

_TRAILER: Final = "TRAILER!!!"
_MAGIC: Final = b"070701"
_HEADER: Final = 110  # bytes: the magic and 13 numbers of 8 hexadecimal digits
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

    def restore(self, path: str, mode: int, data: bytes) -> None:
        """An entry exactly as an archive has it."""
        self._entries[_checked(path)] = (mode, data)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __getitem__(self, path: str) -> bytes:
        """Content of a file or target of a link."""
        return self._entries[path][1]

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        """``(path, st_mode, data)`` in byte order of the paths; a folder comes before what is in it."""
        for path in sorted(self._entries, key=lambda name: PurePosixPath(name).parts):
            yield path, *self._entries[path]

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
    out += _MAGIC + b"".join(b"%08X" % value for value in fields) + name
    out += bytes(-len(out) % _ALIGNMENT)
    out += data
    out += bytes(-len(out) % _ALIGNMENT)


def read(data: bytes) -> Tree:
    """The inverse of ``archive``. Malformed for any other archive, even one that means the same."""
    tree = Tree()
    position = 0
    while True:
        header = data[position : position + _HEADER]
        try:
            fields = [int(header[start : start + 8], 16) for start in range(len(_MAGIC), _HEADER, 8)]
        except ValueError:
            raise Malformed("broken cpio archive") from None
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[position + _HEADER : position + _HEADER + name_size - 1].decode("utf-8", "replace")
        start = _aligned(position + _HEADER + name_size)
        if name == _TRAILER:
            break
        tree.restore(name, mode, data[start : start + size])
        position = _aligned(start + size)
    if archive(tree) != data:
        raise Malformed("the cpio archive is not one that we write")
    return tree


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
