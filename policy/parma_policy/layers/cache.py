# SPDX-License-Identifier: Apache-2.0
"""Converted layers on disk, by diffID, for any number of processes at once.

Files in the directory, for a layer whose diffID has the digest HEX:

    HEX.img      ext4, verity superblock and tree
    HEX.json     what the image is; written last, so an image without it is not valid
    HEX.lock     held (flock) by whoever looks at, makes or removes the two
    HEX.partial  an image being made, by the holder of the lock

A file appears under its final name only when complete and on stable storage, so the process may die at any point:
what is left over is found and removed by the next one. A shared flock on the image itself keeps it from eviction
while it is used; whoever inherits or is sent the descriptor keeps the layer pinned.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, cast

from parma_policy.layers import verity
from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable, Unverified

_FORMAT: Final = 1
_DIFF_ID: Final = re.compile("sha256:([0-9a-f]{64})", re.ASCII)
_HASH: Final = re.compile("[0-9a-f]{64}", re.ASCII)
_FILE: Final = re.compile(r"([0-9a-f]{64})\.(img|json|lock|partial|json\.partial)", re.ASCII)
_MAX_RECORD: Final = 4096
_FIRST_WAIT: Final = 0.005
_LONGEST_WAIT: Final = 0.1
_VERIFY_PIECE: Final = 1 << 20
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class _Record:
    """The contents of HEX.json. The last two tell whether the file was touched since."""

    diff_id: str
    root_hash: str
    ext4_size: int
    total_size: int
    data_blocks: int
    inode: int
    mtime_ns: int


class CachedLayer:
    """A layer that stays in the cache until ``release``. Sizes are bytes."""

    def __init__(self, path: Path, fd: int, record: _Record) -> None:
        self.path: Final = path
        self.fd: Final = fd
        """Open for reading; holds the pin."""
        self.diff_id: Final = record.diff_id
        self.root_hash: Final = record.root_hash
        self.ext4_size: Final = record.ext4_size
        self.total_size: Final = record.total_size
        self.data_blocks: Final = record.data_blocks
        self._released = False

    def verify_fully(self) -> None:
        """Hash every block. Unverified when the image is not the one that was converted."""
        _verify_fully(self.fd, self.root_hash, self.data_blocks)

    def release(self) -> None:
        """Allow eviction again. The path may be gone afterwards; idempotent."""
        if not self._released:
            self._released = True
            os.close(self.fd)

    def __enter__(self) -> CachedLayer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class LayerCache:
    """A directory of converted layers that is kept below ``max_bytes`` where what is in use allows it."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory: Final = Path(directory)
        self.max_bytes: Final = max_bytes
        with self._storage_errors():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.remove_leftovers()

    def get(self, diff_id: str, *, timeout: float | None = None) -> CachedLayer | None:
        """The layer if it is cached and sound. Waits while another process converts it.

        Raises Malformed for what is no diffID, DeadlineExceeded after ``timeout`` seconds of waiting.
        """
        name = _name(diff_id)
        with self._storage_errors(), self._locked(name, timeout):
            return self._open(name, diff_id)

    def get_or_convert(
        self, diff_id: str, open_blob: Callable[[], BinaryIO], *, timeout: float | None = None
    ) -> CachedLayer:
        """The layer, converted from the uncompressed tar that ``open_blob`` gives unless it is cached.

        Two callers that want the same layer convert it once: the second waits (at most ``timeout`` seconds).
        Raises what ``get`` and ``layer_to_image`` raise, Unverified when the tar is not the one with this diffID, and
        Unavailable when the cache cannot be written. Nothing is left behind then.
        """
        name = _name(diff_id)
        with self._storage_errors(), self._locked(name, timeout):
            layer = self._open(name, diff_id)
            if layer is not None:
                return layer
            try:
                layer = self._convert(name, diff_id, open_blob)
            except OSError as error:
                # The cache itself may be what fills the disk.
                if error.errno not in _NO_SPACE or not self._evict_down_to(0):
                    raise
                layer = self._convert(name, diff_id, open_blob)
        with contextlib.suppress(OSError):
            self.evict()
        return layer

    def evict(self) -> None:
        """Remove the layers used longest ago until the rest fits; pinned and busy ones stay."""
        self._evict_down_to(self.max_bytes)

    def _evict_down_to(self, limit: int) -> bool:
        """True when anything was removed."""
        entries = []
        total = 0
        for image in self.directory.glob("*.img"):
            with contextlib.suppress(FileNotFoundError):
                size = image.stat().st_blocks * 512
                total += size
                entries.append((_last_use(image), image.stem, size))
        removed = False
        for _, name, size in sorted(entries):
            if total <= limit:
                break
            if _HASH.fullmatch(name) and self._remove_unused(name):
                total -= size
                removed = True
        return removed

    def remove_leftovers(self) -> None:
        """Remove what dead processes left: partial files, and images or records without their counterpart."""
        found: dict[str, set[str]] = {}
        for path in self.directory.iterdir():
            if match := _FILE.fullmatch(path.name):
                found.setdefault(match[1], set()).add(match[2])
        for name, kinds in found.items():
            if kinds - {"lock"} == {"img", "json"}:
                continue
            with self._try_locked(name) as held:
                if held:
                    self._remove_leftovers_of(name)

    def _remove_leftovers_of(self, name: str) -> None:
        if self._path(name, "img").exists() and self._path(name, "json").exists():
            self._unlink(name, "partial", "json.partial")
        else:
            self._drop(name)
            self._unlink(name, "lock")

    def _path(self, name: str, suffix: str) -> Path:
        return self.directory / f"{name}.{suffix}"

    def _unlink(self, name: str, *suffixes: str) -> None:
        for suffix in suffixes:
            self._path(name, suffix).unlink(missing_ok=True)

    def _drop(self, name: str) -> None:
        """Remove a layer whose lock is held. The record goes first: without it the image does not count."""
        self._unlink(name, "json", "img", "partial", "json.partial")

    def _remove_unused(self, name: str) -> bool:
        with self._try_locked(name) as held:
            if not held:
                return False
            try:
                fd = os.open(self._path(name, "img"), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            else:
                self._drop(name)
                self._unlink(name, "lock")
                return True
            finally:
                os.close(fd)

    @contextmanager
    def _locked(self, name: str, timeout: float | None) -> Iterator[None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = _FIRST_WAIT
        while True:
            with self._try_locked(name) as held:
                if held:
                    yield
                    return
            if deadline is not None and time.monotonic() >= deadline:
                raise DeadlineExceeded(f"layer sha256:{name} is still in use by a process that converts it")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    @contextmanager
    def _try_locked(self, name: str) -> Iterator[bool]:
        """Take a layer's lock if nobody has it; answers whether it did."""
        fd = os.open(self._path(name, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held = False
            else:
                # Whoever evicts a layer removes its lock file too; a lock on a removed file protects nothing.
                held = os.fstat(fd).st_nlink > 0
            yield held
        finally:
            os.close(fd)

    def _open(self, name: str, diff_id: str) -> CachedLayer | None:
        """Open, pin and check a layer whose lock is held; drop it when it is not sound."""
        path = self._path(name, "img")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._drop(name)
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            record = self._load_record(name, diff_id)
            _verify(fd, record)
            if not _is_untouched(fd, record):
                # Copied or written to by somebody else: now every block counts.
                _verify_fully(fd, record.root_hash, record.data_blocks)
                record = self._save_record(name, fd, record)
            os.utime(self._path(name, "json"))
            return CachedLayer(path, fd, record)
        except Unverified:
            os.close(fd)
            self._drop(name)
            return None
        except BaseException:
            os.close(fd)
            raise

    def _convert(self, name: str, diff_id: str, open_blob: Callable[[], BinaryIO]) -> CachedLayer:
        """Make the files of a layer whose lock is held; all of them or none."""
        partial, path = self._path(name, "partial"), self._path(name, "img")
        self._drop(name)
        try:
            result = _write_image(partial, diff_id, open_blob)
            partial.rename(path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                return CachedLayer(path, fd, self._save_record(name, fd, result))
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            self._drop(name)
            raise

    def _load_record(self, name: str, diff_id: str) -> _Record:
        try:
            with self._path(name, "json").open("rb") as file:
                values = json.loads(file.read(_MAX_RECORD))
            if values.pop("format") != _FORMAT:
                raise Unverified("a cached layer of another format")
            record = _Record(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unverified(f"the record of cached layer {diff_id} cannot be read: {error}") from None
        numbers = (record.ext4_size, record.total_size, record.data_blocks, record.inode, record.mtime_ns)
        if record.diff_id != diff_id or not all(isinstance(value, int) and value >= 0 for value in numbers):
            raise Unverified(f"the record of cached layer {diff_id} is damaged")
        return record

    def _save_record(self, name: str, fd: int, layer: LayerImage | _Record) -> _Record:
        status = os.fstat(fd)
        record = _Record(
            diff_id=layer.diff_id,
            root_hash=layer.root_hash,
            ext4_size=layer.ext4_size,
            total_size=layer.total_size,
            data_blocks=layer.data_blocks,
            inode=status.st_ino,
            mtime_ns=status.st_mtime_ns,
        )
        partial = self._path(name, "json.partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"format": _FORMAT, **asdict(record)}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path(name, "json"))
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return record

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise Unavailable(
                    f"no space left for converted layers in {self.directory}",
                    hint="free some, or move the layer cache to a larger file system",
                ) from None
            raise Unavailable(f"layer cache {self.directory}: {error.strerror or error}") from error


def _name(diff_id: str) -> str:
    match = _DIFF_ID.fullmatch(diff_id)
    if match is None:
        raise Malformed(f"{diff_id!r} is not a diffID", expected="sha256: and 64 lower-case hexadecimal digits")
    return match[1]


def _last_use(image: Path) -> int:
    """Nanoseconds; the record is touched at each use, the image never."""
    try:
        return image.with_suffix(".json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _write_image(partial: Path, diff_id: str, open_blob: Callable[[], BinaryIO]) -> LayerImage:
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "r+b", buffering=0) as out:
        with contextlib.closing(open_blob()) as tar:
            result = layer_to_image(tar, cast("BinaryIO", out))
        if result.diff_id != diff_id:
            raise Unverified(f"a layer's contents have diffID {result.diff_id}", expected=diff_id)
        os.fsync(fd)
    return result


def _is_untouched(fd: int, record: _Record) -> bool:
    status = os.fstat(fd)
    return (status.st_ino, status.st_mtime_ns) == (record.inode, record.mtime_ns)


def _verify(fd: int, record: _Record) -> None:
    """Cheap check: sizes agree with each other and with the file, and the tree's top has the root hash.

    The guest checks every block it reads against that root, so what this misses can only make reads fail there.
    """
    blocks = record.data_blocks
    sizes = (blocks * verity.BLOCK, blocks * verity.BLOCK + verity.hash_device_size(blocks))
    if sizes != (record.ext4_size, record.total_size) or os.fstat(fd).st_size != record.total_size:
        raise Unverified(f"cached layer {record.diff_id} has the wrong size")
    head = os.pread(fd, 2 * verity.BLOCK, record.ext4_size)
    top = head[verity.BLOCK :]
    if head[: verity.BLOCK] != verity.superblock(blocks) or verity.block_digest(top).hex() != record.root_hash:
        raise Unverified(f"cached layer {record.diff_id} is damaged")


def _verify_fully(fd: int, root_hash: str, data_blocks: int) -> None:
    digests = bytearray()
    end = data_blocks * verity.BLOCK
    for offset in range(0, end, _VERIFY_PIECE):
        piece = os.pread(fd, min(_VERIFY_PIECE, end - offset), offset)
        if len(piece) % verity.BLOCK:
            raise Unverified("a cached layer is cut short")
        verity.append_digests(digests, piece)
    trailer, root = verity.hash_device(digests)
    expected = b"".join(trailer)
    if root != root_hash or os.pread(fd, len(expected) + 1, end) != expected:
        raise Unverified("a cached layer is damaged")
