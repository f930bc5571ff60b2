# SPDX-License-Identifier: Apache-2.0
"""Frames: the header of ten bytes and what follows it. No I/O here.

::

    | length (32) | stream id (32) | type (8) | flags (8) | data (length bytes) |

All numbers are big-endian; ``length`` does not count the header. See containerd's ttrpc, PROTOCOL.md, "Message Frame".
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ttrpc.errors import Status, TtrpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER: Final = Struct(">IIBB")

MESSAGE_MAX: Final = 4 << 20
"""Longest data of one frame, in bytes."""

REQUEST: Final = 1
RESPONSE: Final = 2
DATA: Final = 3

REMOTE_CLOSED: Final = 0x1
REMOTE_OPEN: Final = 0x2
NO_DATA: Final = 0x4


class Frame(NamedTuple):
    """One frame as it arrived; ``payload`` is ``None`` when it was refused and is being skipped."""

    stream_id: int
    type: int
    flags: int
    length: int
    payload: bytes | None


def encode(stream_id: int, type_: int, flags: int, payload: bytes = b"") -> bytes:
    """The bytes of one frame.

    Raises:
        TtrpcError: RESOURCE_EXHAUSTED when the payload is longer than a frame may be.
    """
    if len(payload) > MESSAGE_MAX:
        raise TtrpcError(
            Status.RESOURCE_EXHAUSTED, f"message of {len(payload)} bytes; a frame holds at most {MESSAGE_MAX}"
        )
    return HEADER.pack(len(payload), stream_id, type_, flags) + payload


def admit_all(_stream_id: int, _type: int, length: int) -> bool:
    """The default rule of :class:`Decoder`: whatever the protocol allows."""
    return length <= MESSAGE_MAX


class Decoder:
    """Cuts a byte stream into frames.

    Memory is taken as data arrives, never on the word of a header. ``admit(stream_id, type, length)`` is asked once
    for each header; when it says no, the frame is reported at once without payload and its data is skipped.
    """

    def __init__(self, admit: Callable[[int, int, int], bool] = admit_all) -> None:
        self._admit = admit
        self._head = bytearray()
        self._frame: Frame | None = None  # admitted, its payload incomplete
        self._payload = bytearray()
        self._skip = 0

    @property
    def unfinished(self) -> int | None:
        """Length of the admitted frame whose data has not all arrived; ``None`` when there is none."""
        return None if self._frame is None else self._frame.length

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that ``data`` completes; the iterator must be exhausted before the next call."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
            elif self._frame is None:
                step = HEADER.size - len(self._head)
                self._head += data[at : at + step]
                at += step
                if len(self._head) == HEADER.size and (empty := self._begin()):
                    yield empty
            else:
                step = self._frame.length - len(self._payload)
                self._payload += data[at : at + step]
                at += step
                if len(self._payload) == self._frame.length:
                    yield self._finish(self._frame)

    def _begin(self) -> Frame | None:
        """Takes a whole header; returns the frame if there is nothing to wait for."""
        length, stream_id, type_, flags = HEADER.unpack(self._head)
        self._head.clear()
        if not self._admit(stream_id, type_, length):
            self._skip = length
            return Frame(stream_id, type_, flags, length, None)
        if not length:
            return Frame(stream_id, type_, flags, 0, b"")
        self._frame = Frame(stream_id, type_, flags, length, None)
        return None

    def _finish(self, frame: Frame) -> Frame:
        payload = bytes(self._payload)
        self._payload = bytearray()
        self._frame = None
        return frame._replace(payload=payload)
