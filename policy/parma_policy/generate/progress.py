# SPDX-License-Identifier: Apache-2.0
"""A progress bar on a terminal, for the reading of layers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol, TextIO

_WIDTH: Final = 30
_MIB: Final = 1 << 20
_SECONDS_BETWEEN: Final = 0.1


class Bar(Protocol):
    """What is told how far the reading of some layers is. Safe for several threads."""

    def over(self, sizes: Mapping[str, int]) -> AbstractContextManager[None]:
        """A context in which layers of these sizes (bytes, -1: not known) are read."""

    def at(self, layer: str, read: int) -> None:
        """So many bytes of a layer were read."""

    def done(self, layer: str) -> None:
        """A layer is finished."""


class NoBar:
    """Says nothing."""

    @contextmanager
    def over(self, sizes: Mapping[str, int]) -> Iterator[None]:  # noqa: ARG002
        """See ``Bar``."""
        yield

    def at(self, layer: str, read: int) -> None:
        """See ``Bar``."""

    def done(self, layer: str) -> None:
        """See ``Bar``."""


class TerminalBar:
    """One line that is drawn again and again, and removed at the end."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._finished: set[str] = set()
        self._drawn = 0.0

    @contextmanager
    def over(self, sizes: Mapping[str, int]) -> Iterator[None]:
        """See ``Bar``."""
        with self._lock:
            self._sizes = {layer: max(0, size) for layer, size in sizes.items()}
            self._read, self._finished = {}, set()
        try:
            self._draw(at_once=True)
            yield
        finally:
            with self._lock:
                self._terminal.write("\r\x1b[K")
                self._terminal.flush()

    def at(self, layer: str, read: int) -> None:
        """See ``Bar``."""
        with self._lock:
            self._read[layer] = read
        self._draw()

    def done(self, layer: str) -> None:
        """See ``Bar``."""
        with self._lock:
            self._read[layer] = self._sizes.get(layer, 0)
            self._finished.add(layer)
        self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        with self._lock:
            now = time.monotonic()
            if not at_once and now - self._drawn < _SECONDS_BETWEEN:
                return
            self._drawn = now
            self._terminal.write(f"\r\x1b[K{self._line()}")
            self._terminal.flush()

    def _line(self) -> str:
        total = sum(self._sizes.values())
        read = min(total, sum(self._read.values()))
        share = read / total if total else len(self._finished) / max(1, len(self._sizes))
        filled = "#" * int(share * _WIDTH)
        count = f"{len(self._finished)}/{len(self._sizes)}"
        return f"layers {count} [{filled:<{_WIDTH}}] {read / _MIB:.0f} of {total / _MIB:.0f} MiB"
