# SPDX-License-Identifier: Apache-2.0
"""Logger programs (``binary://``): one process that gets a container's output on inherited descriptors.

Descriptor 3 is stdout, 4 is stderr, 5 is the ready pipe: the program writes a byte to it, or closes it, when it
listens. Its environment is CONTAINER_ID and CONTAINER_NAMESPACE, the shim's mark (`parma_shim.vm.cleanup`) and nothing
else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import threading
from typing import Final

from parma_shim.stdio.targets import Target
from parma_shim.vm.cleanup import SHIM_MARKER
from parma_wire.errors import DeadlineExceeded, Unavailable

READY_TIMEOUT: Final = 10.0
END_TIMEOUT: Final = 10.0  # after the end of its input
TERM_TIMEOUT: Final = 2.0  # after SIGTERM
_ABOVE_OURS: Final = 16  # the child's 3 to 5 are assigned one after the other: sources must lie outside


class Logger:
    """A running logger program."""

    def __init__(self, target: Target, *, container_id: str, namespace: str) -> None:
        """Starts it and waits until it is ready.

        Raises:
            Unavailable: it cannot be started, or ended without getting ready.
            DeadlineExceeded: it did not get ready in :data:`READY_TIMEOUT` seconds.
        """
        self._pipes: dict[str, int] = {}
        self._ready = -1
        sources: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                read_end, self._pipes[name] = os.pipe2(os.O_CLOEXEC)
                sources.append(_move_up(read_end))
                os.set_blocking(self._pipes[name], False)
            self._ready, ready = os.pipe2(os.O_CLOEXEC)
            sources.append(_move_up(ready))
            self._pid = _spawn(target, sources, container_id, namespace)
        except OSError as error:
            self._close_pipes()
            if self._ready >= 0:
                os.close(self._ready)
            raise Unavailable(f"cannot start the logger {target.path}: {error.strerror}") from None
        finally:
            for source in sources:
                os.close(source)
        self._await_ready(target)

    def take(self, name: str) -> int:
        """The write end for ``stdout`` or ``stderr``, not blocking; from now on the caller's to close."""
        return self._pipes.pop(name)

    def close(self) -> None:
        """Ends its input, as far as that was not taken, and sees in the background that it ends."""
        self._close_pipes()
        threading.Thread(target=self._reap, name="logger", daemon=True).start()

    def _await_ready(self, target: Target) -> None:
        waiting = select.poll()
        waiting.register(self._ready, select.POLLIN)
        answered = bool(waiting.poll(READY_TIMEOUT * 1000))
        ready = answered and (bool(os.read(self._ready, 1)) or not target.ready_required)
        os.close(self._ready)
        if not ready:
            self.close()
        if not answered:
            raise DeadlineExceeded(f"the logger {target.path} did not get ready in {READY_TIMEOUT:.0f} seconds")
        if not ready:
            raise Unavailable(f"the logger {target.path} ended before it was ready")

    def _close_pipes(self) -> None:
        while self._pipes:
            os.close(self._pipes.popitem()[1])

    def _reap(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            handle = os.pidfd_open(self._pid)
            try:
                ended = select.poll()
                ended.register(handle, select.POLLIN)
                for number, patience in ((signal.SIGTERM, END_TIMEOUT), (signal.SIGKILL, TERM_TIMEOUT)):
                    if ended.poll(patience * 1000):
                        break
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
            os.waitpid(self._pid, 0)


def _move_up(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE_OURS)
    os.close(descriptor)
    return moved


def _spawn(target: Target, sources: list[int], container_id: str, namespace: str) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate(sources, 3)]
        return os.posix_spawn(
            target.path,
            [target.path, *target.arguments],
            {"CONTAINER_ID": container_id, "CONTAINER_NAMESPACE": namespace, SHIM_MARKER: str(os.getpid())},
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
        )
    finally:
        os.close(null)
