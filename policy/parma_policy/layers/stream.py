# SPDX-License-Identifier: Apache-2.0
"""Reading a tar once, in large pieces, while another thread hashes it.

The stream is read by one thread, hashed whole (the diffID) by a second, and parsed by the caller's. ``hashlib`` and
``read`` release the interpreter lock for pieces of this size, so on two cores the diffID costs no extra time.
Memory is bounded by the pieces in flight, whatever the length of the stream.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

CHUNK: Final = 1 << 20
"""Bytes asked for in one read."""

_IN_FLIGHT: Final = 2

T = TypeVar("T")


class Readable(Protocol):
    """All that is needed of an input: ``read(n)`` gives at most n bytes, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


class Channel(Generic[T]):
    """A bounded queue between two threads that either side can close.

    ``put`` answers False once closed; ``get`` answers None when closed and empty (or dropped).
    """

    def __init__(self, limit: int = _IN_FLIGHT) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        with self._changed:
            while len(self._items) >= self._limit and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify()
            return True

    def get(self) -> T | None:
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify()
            return item

    def close(self, *, drop: bool = False) -> None:
        """No more items; with ``drop``, those not yet taken are forgotten."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


class _Pump:
    """The threads behind a long stream: one reads, one hashes."""

    def __init__(self, source: Readable, digest: hashlib._Hash) -> None:
        self._source = source
        self._digest = digest
        self._failure: BaseException | None = None
        self._parse: Channel[bytes] = Channel()
        self._hash: Channel[bytes] = Channel()
        self._threads = [
            threading.Thread(target=self._read, name="layer-read", daemon=True),
            threading.Thread(target=self._update, name="layer-diffid", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        try:
            while piece := self._source.read(CHUNK):
                if not (self._hash.put(piece) and self._parse.put(piece)):
                    break
        except BaseException as failure:  # noqa: BLE001 (handed to the thread that parses)
            self._failure = failure
        finally:
            self._parse.close()
            self._hash.close()

    def _update(self) -> None:
        while (piece := self._hash.get()) is not None:
            self._digest.update(piece)

    def next(self) -> bytes:
        piece = self._parse.get()
        if piece is not None:
            return piece
        if self._failure is not None:
            raise self._failure
        return b""

    def finish(self) -> None:
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        # The source must not be read any more when we return: its file descriptor may be reused.
        self._parse.close(drop=True)
        self._hash.close(drop=True)
        self.finish()


class TarStream:
    """A forward-only view of the input with the few ways of reading that a tar parser needs.

    Use as a context manager: leaving it stops the threads, also after an error.
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self._pump: _Pump | None = None
        self._started = False
        self._ended = False
        self._chunk = b""
        self._at = 0

    def __enter__(self) -> TarStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pump is not None:
            self._pump.abandon()

    def _next(self) -> bytes:
        """The next piece, b"" at the end. The first is read here, so short inputs need no threads."""
        if self._ended:
            return b""
        if self._pump is not None:
            piece = self._pump.next()
        elif not self._started:
            self._started = True
            piece = self._source.read(CHUNK)
            self._digest.update(piece)
        else:
            self._pump = _Pump(self._source, self._digest)
            piece = self._pump.next()
        self._ended = not piece
        return piece

    def _fill(self) -> bool:
        """Make sure at least one unread byte is at hand; False at the end of the input."""
        while self._at >= len(self._chunk):
            self._chunk = self._next()
            self._at = 0
            if not self._chunk:
                return False
        return True

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes as one object, fewer only at the end of the input."""
        start = self._at
        end = start + count
        if end <= len(self._chunk):
            self._at = end
            return self._chunk[start:end]
        return b"".join(self.views(count))

    def views(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes piecewise and uncopied; together fewer only at the end of the input."""
        while count > 0 and self._fill():
            end = min(self._at + count, len(self._chunk))
            view = memoryview(self._chunk)[self._at : end]
            count -= end - self._at
            self._at = end
            yield view

    def skip(self, count: int) -> int:
        """Pass over up to ``count`` bytes and return how many there were."""
        return sum(len(view) for view in self.views(count))

    def drain(self) -> str:
        """Read what is left and return the diffID, ``sha256:<hex>``, of everything."""
        while self._fill():
            self._at = len(self._chunk)
        if self._pump is not None:
            self._pump.finish()
        return "sha256:" + self._digest.hexdigest()
