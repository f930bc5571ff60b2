# SPDX-License-Identifier: Apache-2.0
"""The file system a tar describes: names, links, whiteouts (layer format notes, sections 4, 5, 7 and 8).

File contents go straight to the blocks; only inodes and names are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from parma_policy.layers import inode as ino
from parma_policy.layers import tar, times, xattrs
from parma_policy.layers.blocks import BlockSink, Buffer
from parma_policy.layers.errors import Kind, LayerError, printable
from parma_policy.layers.inode import Inode
from parma_policy.layers.verity import BLOCK

_WHITEOUT: Final = b".wh."
_OPAQUE_WHITEOUT: Final = b".wh..wh..opq"
_MAX_FILE: Final = 128 << 30
_MAX_NAME: Final = 255
_SMALL: Final = 16 * BLOCK
_MASK32: Final = 0xFFFFFFFF

_TYPES: Final = {
    tar.REGULAR: ino.S_IFREG,
    tar.SYMLINK: ino.S_IFLNK,
    tar.CHARACTER: ino.S_IFCHR,
    tar.BLOCK_DEVICE: ino.S_IFBLK,
    tar.DIRECTORY: ino.S_IFDIR,
    tar.FIFO: ino.S_IFIFO,
}


@dataclass(slots=True)
class Attributes:
    """What a new inode gets. A ``mode`` without type bits becomes a regular file, but never replaces a directory."""

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    atime: times.Time = None
    ctime: times.Time = None
    mtime: times.Time = None
    crtime: times.Time = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


@lru_cache(maxsize=8)  # each entry's name is asked for twice
def split(name: bytes) -> tuple[bytes, bytes]:
    """Clean a path and split it into directory and last component; both are empty for the root.

    "." and empty components drop out, ".." goes up and stops at the root. Nothing else is interpreted.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part and part != b".":
            parts.append(part)
    if not parts:
        return b"", b""
    last = parts.pop()
    return b"/".join(parts), last


class FileSystem:
    """Takes the entries of one tar in order. After a LayerError the object is of no further use."""

    def __init__(self, sink: BlockSink, *, convert_whiteouts: bool) -> None:
        self._sink = sink
        self._convert_whiteouts = convert_whiteouts
        self.inodes: list[Inode | None] = [None]
        """By inode number minus one; None for numbers that are not in use."""
        self.root = self._make(Attributes(ino.S_IFDIR | 0o755), None)
        self.root.links += 1
        self.inodes += [None] * (ino.FIRST_FREE - 1 - len(self.inodes))
        # Directories are never removed or replaced, so a path once found stays right.
        self._directories: dict[bytes, Inode] = {b"": self.root}
        self._create(b"lost+found", Attributes(ino.S_IFDIR | 0o700))

    def add(self, entry: tar.Entry, reader: tar.TarReader) -> None:
        """Apply one entry, reading its data from ``reader`` if it has any."""
        self._make_parents(entry.name)
        if self._convert_whiteouts:
            directory, _, last = entry.name.rpartition(b"/")
            if last.startswith(_WHITEOUT):
                self._whiteout(directory, last)
                return
        if entry.type == tar.HARD_LINK:
            self._link(entry.link, entry.name)
            return
        attributes = _attributes(entry)
        made = self._create(entry.name, attributes)
        if made.mode & ino.S_IFMT == ino.S_IFREG:
            self._contents(made, attributes.size, reader)

    def write_data(self, node: Inode, pieces: Iterable[Buffer]) -> None:
        """Append the data of ``node`` at the cursor, and its extent block if it needs one."""
        first = self._sink.next
        self._sink.append_pieces(pieces)
        leaf = ino.map_data(node, first, self._sink.next - first, self._sink.next)
        if leaf:
            self._sink.append_padded(leaf)

    def _contents(self, node: Inode, size: int, reader: tar.TarReader) -> None:
        if 0 < size <= _SMALL:
            self.write_data(node, (reader.small_data(),))
        elif size:
            self.write_data(node, reader.data())
        else:
            # An empty file must still agree with its sparse map.
            for _ in reader.data():
                pass

    def _whiteout(self, directory: bytes, last: bytes) -> None:
        if last == _OPAQUE_WHITEOUT:
            found = self._stat(directory)
            found.xattrs[xattrs.OPAQUE] = b"y"
            made = self._create(directory, found)
            if made.mode & ino.S_IFMT == ino.S_IFREG and found.size:
                # Only reachable for a hard-linked file in the place of a directory: it would lose its data.
                raise LayerError(Kind.DATA_OVERWRITTEN, f"{printable(directory)}: cannot be made opaque")
            return
        self._create(directory + b"/" + last[len(_WHITEOUT) :], Attributes(ino.S_IFCHR))

    def _make_parents(self, name: bytes) -> None:
        directory, _ = split(name)
        if directory in self._directories:
            return
        node = self.root
        path = b""
        for part in directory.split(b"/"):
            path = path + b"/" + part if path else part
            child = node.children.get(part) if node.children is not None else None
            if child is None:
                child = self._create(path, _inherited(node))
            node = child

    def _find(self, directory: bytes) -> Inode | None:
        """The directory at a cleaned path; symbolic links are never followed."""
        found = self._directories.get(directory)
        if found is not None:
            return found
        node = self.root
        for part in directory.split(b"/"):
            if node.children is None or (child := node.children.get(part)) is None:
                return None
            node = child
        if node.children is None:
            return None
        self._directories[directory] = node
        return node

    def _lookup(self, name: bytes) -> tuple[Inode, Inode | None, bytes]:
        """(directory, what is at the name or None, last component) for any path."""
        directory_path, last = split(name)
        if not last:
            return self.root, self.root, b""
        if len(last) > _MAX_NAME:
            raise LayerError(Kind.NAME_TOO_LONG, f"{printable(name)}: a name is longer than {_MAX_NAME} bytes")
        directory = self._find(directory_path)
        if directory is None or directory.children is None:
            raise LayerError(Kind.PATH_NOT_FOUND, f"{printable(name)}: a parent is not a directory")
        return directory, directory.children.get(last), last

    def _stat(self, name: bytes) -> Attributes:
        """Read attributes back as the reference does, losses included."""
        _, node, _ = self._lookup(name)
        if node is None:
            raise LayerError(Kind.LINK_TARGET_MISSING, f"{printable(name)}: not found")
        found = xattrs.readable(node.placed.block)
        if node.placed.inode:
            found.update(xattrs.readable(node.placed.inode))
            found.pop(b"system.data", None)
        link = b""
        if node.mode & ino.S_IFMT == ino.S_IFLNK:
            if node.has_data:
                raise LayerError(Kind.DATA_OVERWRITTEN, f"{printable(name)}: a long symbolic link cannot be opaque")
            link = node.map[: node.size]
        attributes = _inherited(node)
        attributes.size = node.size
        attributes.link = link
        attributes.xattrs = found
        return attributes

    def _create(self, name: bytes, new: Attributes) -> Inode:
        directory, existing, last = self._lookup(name)
        is_directory = new.mode & ino.S_IFMT == ino.S_IFDIR
        reuse = None
        if existing is None:
            if is_directory and directory.links >= ino.MAX_LINKS:
                raise LayerError(Kind.TOO_MANY_LINKS, f"{printable(name)}: too many subdirectories in its parent")
        elif existing.is_directory:
            if not is_directory:
                raise LayerError(Kind.DIR_REPLACED, f"{printable(name)}: cannot replace a directory with a file")
            reuse = existing
        elif is_directory:
            raise LayerError(Kind.FILE_REPLACED_BY_DIR, f"{printable(name)}: cannot replace a file with a directory")
        elif existing.links < 2:
            reuse = existing
        if reuse is not None and reuse.has_data:
            raise LayerError(Kind.DATA_OVERWRITTEN, f"{printable(name)}: cannot overwrite a file that has data")
        made = self._make(new, reuse)
        if made is not existing:
            if existing is not None:
                existing.links -= 1
            assert directory.children is not None  # noqa: S101 (_lookup returns directories only)
            directory.children[last] = made
            made.links += 1
            if made.is_directory:
                directory.links += 1
        return made

    def _make(self, new: Attributes, reuse: Inode | None) -> Inode:
        """A new inode, or ``reuse`` with everything replaced but links, children and the inode's attributes."""
        mode = new.mode if new.mode & ino.S_IFMT else new.mode | ino.S_IFREG
        kind = mode & ino.S_IFMT
        node = reuse
        if node is None:
            node = Inode(len(self.inodes) + 1)
            if kind == ino.S_IFDIR:
                node.children = {}
                node.links = 1
        merged = {**xattrs.readable(node.placed.inode), **new.xattrs} if node.placed.inode else new.xattrs
        node.mode = mode | 0o777 if kind == ino.S_IFLNK else mode
        node.uid, node.gid = new.uid, new.gid
        node.major, node.minor = new.major, new.minor
        node.atime, node.ctime = times.encode(new.atime), times.encode(new.ctime)
        node.mtime, node.crtime = times.encode(new.mtime), times.encode(new.crtime)
        node.map = ino.NO_MAP
        node.size = 0
        if kind == ino.S_IFREG:
            if new.size > _MAX_FILE:
                raise LayerError(Kind.FILE_TOO_BIG, f"a file of {new.size} bytes is larger than 128 GiB")
            node.size = new.size
        self._set_xattrs(node, merged)
        if kind == ino.S_IFLNK:
            node.size = len(new.link)
            if len(new.link) <= ino.SMALL_SYMLINK:
                node.map = new.link.ljust(len(ino.NO_MAP), b"\0")
            else:
                self.write_data(node, (new.link,))
        if reuse is None:
            self.inodes.append(node)
        return node

    def _set_xattrs(self, node: Inode, attributes: dict[bytes, bytes]) -> None:
        node.placed = xattrs.place(attributes)
        if not node.placed.block and not node.xattr_block:
            return
        contents = xattrs.block(node.placed.block)
        if node.xattr_block:
            # A block once owned is rewritten in place, even when nothing is left in it.
            self._sink.rewrite(node.xattr_block, contents)
            return
        node.xattr_block = self._sink.next
        node.blocks += 1
        self._sink.append(contents)

    def _link(self, target: bytes, name: bytes) -> None:
        directory, existing, last = self._lookup(name)
        if existing is not None and (existing.is_directory or existing.links < 2):
            raise LayerError(Kind.LINK_ORPHANS, f"{printable(name)}: a link would orphan what is there")
        _, node, _ = self._lookup(target)
        if node is None:
            raise LayerError(Kind.LINK_TARGET_MISSING, f"{printable(target)}: link target not found")
        if node.is_directory:
            raise LayerError(Kind.LINK_TO_DIR, f"{printable(name)}: link target {printable(target)} is a directory")
        if existing is not node and node.links >= ino.MAX_LINKS:
            raise LayerError(Kind.TOO_MANY_LINKS, f"{printable(name)}: too many links to {printable(target)}")
        if existing is not None:
            existing.links -= 1
        node.links += 1
        assert directory.children is not None  # noqa: S101 (_lookup returns directories only)
        directory.children[last] = node


def _attributes(entry: tar.Entry) -> Attributes:
    return Attributes(
        mode=(entry.mode & 0xFFF) | _TYPES.get(entry.type, 0),
        uid=entry.uid & _MASK32,
        gid=entry.gid & _MASK32,
        size=entry.size,
        link=entry.link,
        major=entry.major & _MASK32,
        minor=entry.minor & _MASK32,
        atime=entry.atime,
        ctime=entry.ctime,
        mtime=entry.mtime,
        crtime=entry.mtime,
        xattrs=entry.xattrs() if entry.records else {},
    )


def _inherited(node: Inode) -> Attributes:
    """The attributes of ``node`` for a new inode, times read back from their stored form."""
    return Attributes(
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        major=node.major,
        minor=node.minor,
        atime=times.decode(node.atime),
        ctime=times.decode(node.ctime),
        mtime=times.decode(node.mtime),
        crtime=times.decode(node.crtime),
    )
