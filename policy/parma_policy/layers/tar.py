# SPDX-License-Identifier: Apache-2.0
"""Reading tar archives exactly as Go's ``archive/tar`` does (layer format notes, section 3).

Python's ``tarfile`` is more forgiving in some places and stricter in others, and what a layer's root hash is depends
on every one of them. Names and link targets are bytes throughout; nothing is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from parma_policy.layers import pax, sparse
from parma_policy.layers.errors import Kind, LayerError
from parma_policy.layers.stream import TarStream
from parma_policy.layers.times import Time

_BLOCK: Final = 512
_ZERO_BLOCK: Final = bytes(_BLOCK)
_MAX_SPECIAL: Final = 1 << 20
_ZEROS: Final = memoryview(bytes(1 << 20))
_OCTAL: Final = re.compile(rb"[0-7]+")
_NO_DATA: Final = frozenset(b"123456")
_HIGH_BYTES: Final = bytes(range(0x80, 0x100))
_NO_RECORDS: Final[dict[bytes, bytes]] = {}

REGULAR: Final = ord("0")
HARD_LINK: Final = ord("1")
SYMLINK: Final = ord("2")
CHARACTER: Final = ord("3")
BLOCK_DEVICE: Final = ord("4")
DIRECTORY: Final = ord("5")
FIFO: Final = ord("6")
_LONG_NAME: Final = ord("L")
_LONG_LINK: Final = ord("K")
_PAX: Final = ord("x")
_PAX_GLOBAL: Final = ord("g")
_GNU_SPARSE: Final = ord("S")


class Entry:
    """One member of the archive, with all extension headers applied. ``size`` is the expanded size in bytes."""

    __slots__ = (
        "atime", "ctime", "gid", "link", "major", "minor", "mode", "mtime", "name", "records", "size", "type", "uid",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = b""
        self.link = b""
        self.type = REGULAR
        self.mode = self.uid = self.gid = self.size = self.major = self.minor = 0
        self.mtime: Time = None
        self.atime: Time = None
        self.ctime: Time = None
        self.records: dict[bytes, bytes] = _NO_RECORDS

    def xattrs(self) -> dict[bytes, bytes]:
        """Extended attributes by full name."""
        prefix = pax.XATTR_PREFIX
        return {key[len(prefix) :]: value for key, value in self.records.items() if key.startswith(prefix)}


def header_error(what: str) -> LayerError:
    return LayerError(Kind.TAR_HEADER, f"tar header: {what}")


def _truncated() -> LayerError:
    return LayerError(Kind.TAR_TRUNCATED, "the tar ends in the middle of an entry")


def _string(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = _string(digits)
    if not _OCTAL.fullmatch(digits):
        raise header_error("a number does not parse")
    return int(digits, 8)


@lru_cache(maxsize=4096)
def number(field: bytes) -> int:
    """A numeric header field: octal text, or base-256 two's complement when the first bit is set."""
    if field[0] < 0x80:
        return _octal(field)
    value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    if field[0] & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -(1 << 63) <= value < 1 << 63:
        raise header_error("a number is too large")
    return value


def _check_sum(block: bytes) -> None:
    try:
        stored = _octal(block[148:156])
    except LayerError:
        raise header_error("bad checksum") from None
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored == unsigned:
        return
    plain = block[:148] + block[156:]
    high = len(plain) - len(plain.translate(None, _HIGH_BYTES))
    if stored != unsigned - 256 * high:
        raise header_error("bad checksum")


def _parse_header(block: bytes) -> Entry:
    _check_sum(block)
    entry = Entry()
    entry.type = block[156]
    entry.name = _string(block[:100])
    entry.link = _string(block[157:257])
    entry.size = number(block[124:136])
    entry.mode = number(block[100:108])
    entry.uid = number(block[108:116])
    entry.gid = number(block[116:124])
    entry.mtime = (number(block[136:148]), 0)
    magic = block[257:263]
    prefix = b""
    if magic == b"ustar\0":
        _parse_devices(entry, block)
        if block[508:] == b"tar\0":
            prefix = _string(block[345:476])
            entry.atime = (number(block[476:488]), 0)
            entry.ctime = (number(block[488:500]), 0)
        else:
            prefix = _string(block[345:500])
    elif block[257:265] == b"ustar  \0":
        _parse_devices(entry, block)
        prefix = _gnu_times(entry, block)
    if prefix:
        entry.name = prefix + b"/" + entry.name
    return entry


def _parse_devices(entry: Entry, block: bytes) -> None:
    entry.major = number(block[329:337])
    entry.minor = number(block[337:345])


def _gnu_times(entry: Entry, block: bytes) -> bytes:
    """Set atime and ctime of a GNU header. Some old writers put a ustar prefix there: then return that."""
    atime, ctime = block[345:357], block[357:369]
    try:
        if atime[0]:
            entry.atime = (number(atime), 0)
        if ctime[0]:
            entry.ctime = (number(ctime), 0)
    except LayerError:
        entry.atime = entry.ctime = None
        prefix = _string(block[345:500])
        return prefix if prefix.isascii() else b""
    return b""


def _merge(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Apply pax records; an empty value keeps what the header says."""
    for key, value in records.items():
        if not value:
            continue
        match key:
            case b"path":
                entry.name = value
            case b"linkpath":
                entry.link = value
            case b"uid":
                entry.uid = pax.parse_int(value)
            case b"gid":
                entry.gid = pax.parse_int(value)
            case b"size":
                entry.size = pax.parse_int(value)
            case b"mtime":
                entry.mtime = pax.parse_time(value)
            case b"atime":
                entry.atime = pax.parse_time(value)
            case b"ctime":
                entry.ctime = pax.parse_time(value)
    entry.records = records


class TarReader:
    """Iterates over the entries; between two of them, ``data`` gives the contents of the first.

    All errors are LayerError with kind TAR_HEADER or TAR_TRUNCATED.
    """

    def __init__(self, stream: TarStream) -> None:
        self._stream = stream
        self._dense = 0  # bytes of the current entry still to come
        self._padding = 0
        self._holes: list[sparse.Fragment] | None = None
        self._logical = 0

    def next(self) -> Entry | None:
        """The next entry, or None at the end of the archive."""
        records = _NO_RECORDS
        long_name = long_link = b""
        while True:
            self._skip_rest()
            block = self._read_header()
            if block is None:
                return None
            entry = _parse_header(block)
            self._begin_data(entry)
            match entry.type:
                case 0x78:  # _PAX
                    records = pax.parse_records(self._special())
                case 0x67:  # _PAX_GLOBAL
                    return self._global_entry(entry)
                case 0x4C:  # _LONG_NAME
                    long_name = _string(self._special())
                case 0x4B:  # _LONG_LINK
                    long_link = _string(self._special())
                case _:
                    break
        if records:
            _merge(entry, records)
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        if entry.type == 0:
            entry.type = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        self._begin_data(entry)
        self._begin_sparse(entry, block)
        self._logical = entry.size if self._holes is not None else self._dense
        return entry

    def data(self) -> Iterator[memoryview]:
        """The contents of the entry just returned, holes expanded, in pieces of no particular size."""
        if self._holes is None:
            return self._plain(self._dense)
        return self._expanded(self._holes, self._logical)

    def small_data(self) -> bytes:
        """The contents in one object; for entries known to be small."""
        if self._holes is not None:
            return b"".join(self.data())
        wanted, self._dense = self._dense, 0
        contents = self._stream.take(wanted)
        if len(contents) < wanted:
            raise _truncated()
        return contents

    def _plain(self, count: int) -> Iterator[memoryview]:
        for view in self._stream.views(count):
            self._dense -= len(view)
            count -= len(view)
            yield view
        if count:
            raise _truncated()

    def _expanded(self, gaps: list[sparse.Fragment], size: int) -> Iterator[memoryview]:
        position = 0
        for offset, length in gaps:
            if offset > position:
                if offset - position > self._dense:
                    yield from self._plain(self._dense)
                    raise header_error("a sparse file's map refers to data that is not there")
                yield from self._plain(offset - position)
            for start in range(0, length, len(_ZEROS)):
                yield _ZEROS[: min(len(_ZEROS), length - start)]
            position = offset + length
        if position != size or self._dense:
            raise header_error("a sparse file has data that its map does not mention")

    def _skip_rest(self) -> None:
        if self._dense:
            if self._stream.skip(self._dense) < self._dense:
                raise _truncated()
            self._dense = 0
        if self._padding:
            # A missing last padding is a clean end: the read of the next header finds it.
            self._stream.skip(self._padding)
            self._padding = 0
        self._holes = None

    def _read_header(self) -> bytes | None:
        block = self._stream.take(_BLOCK)
        if not block:
            return None
        if block == _ZERO_BLOCK:
            block = self._stream.take(_BLOCK)
            if not block or block == _ZERO_BLOCK:
                return None
            if len(block) == _BLOCK:
                raise header_error("data after a zero block")
        if len(block) < _BLOCK:
            raise _truncated()
        return block

    def _begin_data(self, entry: Entry) -> None:
        size = 0 if entry.type in _NO_DATA else entry.size
        if size < 0:
            raise header_error("negative size")
        self._dense = size
        self._padding = -size % _BLOCK

    def _special(self) -> bytes:
        """The data of an extension header."""
        wanted = min(self._dense, _MAX_SPECIAL + 1)
        data = self._stream.take(wanted)
        if len(data) < wanted:
            raise _truncated()
        if wanted > _MAX_SPECIAL:
            raise header_error("an extension header is larger than 1 MiB")
        self._dense = 0
        return data

    def _global_entry(self, header: Entry) -> Entry:
        """A global pax header comes out as an empty file of its own; it applies to nothing else."""
        records = pax.parse_records(self._special())
        entry = Entry()
        entry.type = _PAX_GLOBAL
        # Bad numbers are no error here, but then the records as a whole do not count.
        entry.name = records.get(b"path") or header.name
        try:
            _merge(header, records)
        except LayerError:
            return entry
        entry.records = records
        return entry

    def _begin_sparse(self, entry: Entry, block: bytes) -> None:
        if entry.type == _GNU_SPARSE:
            if block[257:265] != b"ustar  \0":
                raise header_error("an old GNU sparse file without a GNU header")
            entry.size = number(block[483:495])
            fragments = sparse.read_old_map(block, self._raw_block, number)
        else:
            found = self._pax_sparse(entry)
            if found is None:
                return
            fragments = found
        if entry.type in _NO_DATA:
            raise header_error("a sparse file of a type that has no data")
        self._holes = sparse.holes(fragments, entry.size)

    def _pax_sparse(self, entry: Entry) -> list[sparse.Fragment] | None:
        records = entry.records
        version = (records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b""))
        if version == (b"", b""):
            if not records.get(pax.SPARSE_MAP):
                return None
        elif version not in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
            return None
        entry.name = records.get(b"GNU.sparse.name") or entry.name
        size = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize")
        if size:
            entry.size = pax.parse_int(size)
        if version == (b"1", b"0"):
            return sparse.read_data_map(self._data_block)
        return sparse.read_pax_map(records)

    def _raw_block(self) -> bytes:
        """The next 512 bytes of the stream, which do not count as data of the entry."""
        block = self._stream.take(_BLOCK)
        if len(block) < _BLOCK:
            raise _truncated()
        return block

    def _data_block(self) -> bytes:
        if self._dense < _BLOCK:
            self._dense -= len(self._stream.take(self._dense))
            raise _truncated()
        self._dense -= _BLOCK
        return self._raw_block()
