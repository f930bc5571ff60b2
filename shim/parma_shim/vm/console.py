# SPDX-License-Identifier: Apache-2.0
"""What QEMU and the guest's serial console say, kept in bounded space.

The guest decides how much it prints, so the file, the memory and the time spent on it are all limited.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MAX_FILE: Final = 256 * 1024
"""Bytes per log file; the previous one is kept beside it with the suffix ``.1``."""

_TAIL: Final = 8 * 1024
_BYTES_PER_SECOND: Final = 256 * 1024
_READ_SIZE: Final = 4096
_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|.)")  # ECMA-48: the firmware clears its screen


class BoundedLog:
    """Copies a descriptor into a file of limited size. For one thread."""

    def __init__(self, fd: int, path: Path, *, awaited: bytes = b"") -> None:
        """``seen`` is set once the log has the text ``awaited``."""
        self.fd: Final = fd
        self.seen: Final = threading.Event()
        self._awaited: Final = awaited
        self.first_byte: float | None = None
        """``time.monotonic`` when the first byte arrived."""
        self._path: Final = path
        self._tail = b""
        self._size = 0
        self._second = 0
        self._budget = _BYTES_PER_SECOND
        self._file: int | None = None

    def paused_until(self) -> float | None:
        """When reading may go on after too much in one second; the writer waits meanwhile. None: now."""
        now = time.monotonic()
        if int(now) != self._second:
            self._second, self._budget = int(now), _BYTES_PER_SECOND
        return None if self._budget > 0 else float(self._second + 1)

    def pump(self) -> bool:
        """Copy what is there. False at the end of the stream."""
        try:
            piece = os.read(self.fd, _READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not piece:
            return False
        if self.first_byte is None:
            self.first_byte = time.monotonic()
        self._budget -= len(piece)
        self._tail = (self._tail + piece)[-_TAIL:]
        if self._awaited and self._awaited in self._tail:
            self.seen.set()
        self._store(piece)
        return True

    def drain(self) -> None:
        """Read what is left after the writer's end, within one second's budget. The descriptor must not block."""
        while self.paused_until() is None:
            before = self._budget
            if not self.pump() or self._budget == before:
                return

    def tail_lines(self, count: int) -> list[str]:
        """The last non-empty lines, printable characters only: this text is the guest's and goes into errors.

        What came before the awaited text is not of interest any more.
        """
        tail = self._tail.rpartition(self._awaited)[2] if self._awaited else self._tail
        text = _ESCAPE.sub("", tail.decode("ascii", "replace"))
        lines = ("".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines())
        return [line[:300] for line in lines if line][-count:]

    def close(self) -> None:
        """Close the descriptor and the file."""
        os.close(self.fd)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _store(self, piece: bytes) -> None:
        """A log that cannot be written (disk full, directory gone) is not worth losing a container for."""
        try:
            if self._file is None or self._size + len(piece) > MAX_FILE:
                self._rotate()
            if self._file is not None:
                os.write(self._file, piece)
                self._size += len(piece)
        except OSError:
            return

    def _rotate(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._path.rename(self._path.with_name(self._path.name + ".1"))
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = 0


def register(poll: select.poll, logs: Iterable[BoundedLog]) -> float | None:
    """Register the logs that may be read now; returns how many ms until a paused one may be."""
    timeout: float | None = None
    for log in logs:
        until = log.paused_until()
        if until is None:
            poll.register(log.fd, select.POLLIN)
        else:
            poll.register(log.fd, 0)
            timeout = max(1.0, (until - time.monotonic()) * 1000)
    return timeout
