# SPDX-License-Identifier: Apache-2.0
"""Where a container's input comes from on the host."""

from __future__ import annotations

import os
import select
import stat
import threading
from typing import Final

from parma_shim.stdio.waiting import Stopper
from parma_wire.errors import NotFound, Unavailable

GRACE: Final = 1.0
"""After CloseIO, a client that keeps its end of the fifo open and writes nothing for so many seconds has finished."""

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Input:
    """A fifo, mostly.

    Its write end is held open as well until :meth:`finish`: a client that detaches is no end of input. After that
    the end comes when every writer is gone and what is in the fifo has been read.
    """

    def __init__(self, path: str) -> None:
        """Opens it; a fifo needs no writer yet.

        Raises:
            NotFound, Unavailable
        """
        self._lock = threading.Lock()
        self._keeper = -1
        self._finished = False
        self._descriptor = -1
        self._wake = Stopper()
        try:
            self._descriptor = os.open(path, _FLAGS)
            self._is_fifo = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
            if self._is_fifo:
                self._keeper = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            if isinstance(error, FileNotFoundError):
                raise NotFound(f"{path} for the input does not exist") from None
            raise Unavailable(f"cannot open {path} for the input: {error.strerror}") from None

    def finish(self) -> None:
        """No more will come than is on its way (CloseIO). Idempotent; from any thread."""
        with self._lock:
            self._finished = True
            if self._keeper >= 0:
                os.close(self._keeper)
                self._keeper = -1
            self._wake.stop()

    def read(self, size: int, stopper: Stopper) -> bytes | None:
        """Up to ``size`` bytes, ``b""`` at the end, ``None`` when stopped."""
        while not stopper.stopped:
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:
                if not self._wait(stopper):
                    return b""
            except OSError:
                return b""
        return None

    def close(self) -> None:
        """Idempotent. Only the pump that reads may call it."""
        self.finish()
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            self._wake.close()

    def _wait(self, stopper: Stopper) -> bool:
        """Until something can be read (or ``stopper`` stops); ``False`` when the client has finished."""
        if self._finished:
            return stopper.wait(self._descriptor, select.POLLIN, GRACE) or stopper.stopped
        poll = select.poll()
        for descriptor in (self._descriptor, self._wake.fileno(), stopper.fileno()):
            poll.register(descriptor, select.POLLIN)
        poll.poll()
        return True
