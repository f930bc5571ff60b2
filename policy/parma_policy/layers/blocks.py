# SPDX-License-Identifier: Apache-2.0
"""Where the blocks of the image go: to their digests at once, and to the output in large pieces.

Blocks are final when appended, but for the head of the image (superblock and descriptors) and for attribute blocks
that the reference writes a second time; those are patched. So the verity tree needs no second pass over the data, and
only 32 bytes are kept per block.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import BinaryIO, Final, TypeAlias

from parma_policy.layers.errors import Kind, LayerError
from parma_policy.layers.stream import Channel
from parma_policy.layers.verity import BLOCK, DIGEST, append_digests, block_digest

Buffer: TypeAlias = bytes | bytearray | memoryview

_STAGE: Final = 1 << 20
_DIRECT: Final = 128 * 1024
_MAX_PATCHES: Final = 256
_ZEROS: Final = bytes(256 * BLOCK)


class BlockSink:
    """An append-only run of blocks from number ``first``, limited to ``limit`` blocks in all.

    Errors: LayerError DISK_TOO_BIG; OSError of the output. Use as a context manager so that the writer ends.
    """

    def __init__(self, out: BinaryIO | None, first: int, limit: int) -> None:
        self._writer = None if out is None else _Writer(out, first * BLOCK)
        self._limit = limit
        self.digests = bytearray(first * DIGEST)
        self.next = first
        """Number of the block that will be appended next."""

    def __enter__(self) -> BlockSink:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.abandon()

    def _reserve(self, count: int) -> None:
        if self.next + count > self._limit:
            raise LayerError(Kind.DISK_TOO_BIG, f"disk exceeded maximum size of {self._limit * BLOCK} bytes")
        self.next += count

    def append(self, data: Buffer) -> None:
        """Append whole blocks. ``data`` must not change afterwards."""
        self._reserve(len(data) // BLOCK)
        append_digests(self.digests, data)
        if self._writer is not None:
            self._writer.append(data)

    def append_padded(self, data: bytes) -> None:
        """Append ``data``, filled up with zeros to whole blocks."""
        padding = -len(data) % BLOCK
        self.append(data + bytes(padding) if padding else data)

    def append_zeros(self, count: int) -> None:
        """Append ``count`` blocks of zeros."""
        self._reserve(count)
        self.digests += _ZERO_DIGEST * count
        if self._writer is not None:
            for start in range(0, count, len(_ZEROS) // BLOCK):
                self._writer.append(_ZEROS[: (count - start) * BLOCK])

    def append_pieces(self, pieces: Iterable[Buffer]) -> None:
        """Append the concatenation of ``pieces``, filled up with zeros; large pieces are not copied."""
        rest = bytearray()
        for piece in pieces:
            view = memoryview(piece)
            if rest:
                wanted = BLOCK - len(rest)
                rest += view[:wanted]
                view = view[wanted:]
                if len(rest) < BLOCK:
                    continue
                self.append(bytes(rest))
            whole = len(view) - len(view) % BLOCK
            if whole:
                self.append(view[:whole])
            rest = bytearray(view[whole:])
        if rest:
            self.append_padded(bytes(rest))

    def rewrite(self, number: int, data: bytes) -> None:
        """Replace blocks that were appended (or skipped at the start) before."""
        for start in range(0, len(data), BLOCK):
            index = number + start // BLOCK
            self.digests[index * DIGEST : (index + 1) * DIGEST] = block_digest(data[start : start + BLOCK])
        if self._writer is not None:
            self._writer.patch(number * BLOCK, data)

    def finish(self, trailer: Iterable[bytes]) -> None:
        """Write ``trailer`` behind the last block (neither hashed nor limited) and everything still pending."""
        if self._writer is not None:
            for piece in trailer:
                self._writer.append(piece)
            self._writer.finish()


_ZERO_DIGEST: Final = block_digest(bytes(BLOCK))


class _Writer:
    """Writes on a thread of its own once there is much to write; order of the bytes is kept."""

    def __init__(self, out: BinaryIO, start: int) -> None:
        self._out = out
        self._base = out.tell()
        out.seek(self._base + start)
        self._staged = bytearray()
        self._queue: Channel[Buffer] | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._patches: dict[int, bytes] = {}

    def append(self, data: Buffer) -> None:
        if len(data) >= _DIRECT:
            self._flush()
            self._send(data)
            return
        self._staged += data
        if len(self._staged) >= _STAGE:
            self._flush()

    def patch(self, offset: int, data: bytes) -> None:
        self._patches[offset] = data
        if len(self._patches) > _MAX_PATCHES:
            self._apply_patches()

    def finish(self) -> None:
        self._apply_patches()

    def abandon(self) -> None:
        if self._queue is not None:
            self._queue.close(drop=True)
        self._join()

    def _flush(self) -> None:
        if self._staged:
            self._send(self._staged)
            self._staged = bytearray()

    def _send(self, data: Buffer) -> None:
        if self._queue is None:
            self._queue = Channel()
            self._thread = threading.Thread(target=self._work, args=(self._queue,), name="layer-write", daemon=True)
            self._thread.start()
        if not self._queue.put(data):
            self._join()
            self._check()

    def _work(self, queue: Channel[Buffer]) -> None:
        try:
            while (data := queue.get()) is not None:
                _write_all(self._out, data)
        except BaseException as failure:  # noqa: BLE001 (handed to the thread that converts)
            self._failure = failure
            queue.close(drop=True)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread = self._queue = None

    def _settle(self) -> None:
        """Return when everything appended so far is written."""
        if self._queue is None:
            _write_all(self._out, self._staged)
            self._staged = bytearray()
            return
        self._flush()
        if self._queue is not None:
            self._queue.close()
        self._join()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _apply_patches(self) -> None:
        self._settle()
        end = self._out.tell()
        for offset, data in self._patches.items():
            self._out.seek(self._base + offset)
            _write_all(self._out, data)
        self._patches.clear()
        self._out.seek(end)


def _write_all(out: BinaryIO, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        written = out.write(view)
        view = view[written:]
