# SPDX-License-Identifier: Apache-2.0
"""Where a container's output goes on the host: one file descriptor that is written without ever getting stuck."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import Final

from parma_shim.stdio.targets import Kind, Target
from parma_shim.stdio.waiting import Stopper
from parma_wire.errors import NotFound, Unavailable

_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Output:
    """A descriptor for output, or nowhere (-1). Owned by one pump."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | bytearray, stopper: Stopper, timeout: float | None) -> int:
        """Writes some of it and says how much; waits up to ``timeout`` seconds for room, ``None`` for any time.

        What cannot be written (a logger that died, a disk that is full) counts as written, and so does all that
        follows: a container must not hang because its log is gone.
        """
        while data and self._descriptor >= 0:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                if not stopper.wait(self._descriptor, select.POLLOUT, timeout):
                    return 0
            except OSError:
                self.close()
        return len(data)

    def close(self) -> None:
        """The reader sees the end, if no other descriptor is open. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_output(target: Target) -> Output:
    """Opens what the target names; a logger's pipes are not opened here.

    Raises:
        NotFound: the path does not exist.
        Unavailable: it cannot be opened or made.
    """
    try:
        if target.kind is Kind.FILE:
            Path(target.path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            return Output(os.open(target.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS, 0o644))
        if target.kind is Kind.PATH:
            return Output(os.open(target.path, _mode(target.path) | _FLAGS))
    except FileNotFoundError:
        raise NotFound(f"{target.path} for the output does not exist") from None
    except OSError as error:
        raise Unavailable(f"cannot open {target.path} for the output: {error.strerror}") from None
    return Output(-1)


def _mode(path: str) -> int:
    """A fifo is opened for reading too: its reader may come and go (containerd restarts) without a broken pipe."""
    return os.O_RDWR if stat.S_ISFIFO(Path(path).stat().st_mode) else os.O_WRONLY | os.O_APPEND
