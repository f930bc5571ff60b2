# SPDX-License-Identifier: Apache-2.0
"""The guest's ends of a process's stdin, stdout and stderr: pipes, a terminal, or nothing."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from typing import Final

from parma_wire.errors import AlreadyExists, FailedPrecondition

STDIN: Final = 1
STDOUT: Final = 2
STDERR: Final = 3
KINDS: Final = (STDIN, STDOUT, STDERR)
"""The numbers of ``StreamKind``."""


class Stdio:
    """What a process reads and writes. Descriptors are non-blocking; a kind that is absent is at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptors: dict[int, int] = {}
        self._busy: set[int] = set()
        self._closing = False
        self._terminal = False

    @classmethod
    def nothing(cls) -> tuple[Stdio, tuple[int, int, int]]:
        """No access: the process gets /dev/null three times. Second value: its descriptors, to be closed after use."""
        return cls(), _null_three()

    @classmethod
    def pipes(cls, *, stdin: bool) -> tuple[Stdio, tuple[int, int, int]]:
        """Pipes, with /dev/null for an stdin that nobody will write."""
        own = cls()
        theirs: list[int] = []
        if stdin:
            read, write = os.pipe2(os.O_CLOEXEC)
            own.add(STDIN, write)
            theirs.append(read)
        else:
            theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for kind in (STDOUT, STDERR):
            read, write = os.pipe2(os.O_CLOEXEC)
            own.add(kind, read)
            theirs.append(write)
        return own, (theirs[0], theirs[1], theirs[2])

    @classmethod
    def terminal(cls) -> tuple[Stdio, tuple[int, int, int]]:
        """A terminal, whose master arrives later (`set_terminal`); crun itself gets /dev/null."""
        own = cls()
        own._terminal = True
        return own, _null_three()

    @property
    def is_terminal(self) -> bool:
        """True when stdin and stdout are one terminal."""
        return self._terminal

    def add(self, kind: int, descriptor: int) -> None:
        """Takes a descriptor over."""
        os.set_blocking(descriptor, False)
        self._descriptors[kind] = descriptor

    def set_terminal(self, master: int) -> None:
        """Takes the master over. Reading and writing get a descriptor each, so that one can be closed alone."""
        self.add(STDIN, master)
        self.add(STDOUT, fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3))

    def resize(self, width: int, height: int) -> None:
        """Sets the terminal's size in characters. Raises `FailedPrecondition` without a terminal."""
        with self._lock:
            descriptor = self._descriptors.get(STDOUT) if self._terminal else None
            if descriptor is None:
                raise FailedPrecondition("the process has no terminal")
            fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def borrow(self, kind: int) -> int | None:
        """The descriptor for the one stream of this kind, or None at its end. Give it back with `give_back`."""
        with self._lock:
            if kind in self._busy:
                raise AlreadyExists("the stream is open already")
            descriptor = self._descriptors.get(kind)
            if descriptor is not None:
                self._busy.add(kind)
            return descriptor

    def give_back(self, kind: int, *, finished: bool) -> None:
        """Ends a `borrow`; ``finished`` closes the descriptor for good."""
        with self._lock:
            self._busy.discard(kind)
            # A terminal's stdin stays: closing it would hang the terminal up.
            if self._closing or (finished and not (self._terminal and kind == STDIN)):
                self._close(kind)

    def close(self) -> None:
        """Closes everything; what a stream still uses is closed when it gives it back."""
        with self._lock:
            self._closing = True
            for kind in KINDS:
                if kind not in self._busy:
                    self._close(kind)

    def _close(self, kind: int) -> None:
        descriptor = self._descriptors.pop(kind, None)
        if descriptor is not None:
            os.close(descriptor)


class Waker:
    """Wakes a thread that waits in `wait_ready`. Closing it twice does no harm."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Every `wait_ready` with this waker returns from now on."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """For poll."""
        return self._descriptor

    def close(self) -> None:
        """Only when nobody waits any more."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def wait_ready(descriptor: int, events: int, waker: Waker, timeout: float | None) -> bool:
    """True when the descriptor is ready (or broken), False when woken or out of time (seconds)."""
    poll = select.poll()
    poll.register(descriptor, events)
    poll.register(waker.fileno(), select.POLLIN)
    found = dict(poll.poll(None if timeout is None else max(0, int(timeout * 1000) + 1)))
    return descriptor in found


def _null_three() -> tuple[int, int, int]:
    read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    write = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    return read, write, os.dup(write)
