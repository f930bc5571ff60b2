# SPDX-License-Identifier: Apache-2.0
"""A process of a container, from creation until it is forgotten."""

from __future__ import annotations

import os
import select
import signal as signals
import threading
from collections.abc import Callable
from typing import NamedTuple

from parma_guest.reaper import Child
from parma_guest.stdio import Stdio
from parma_guest.values import ContainerId, ExecId
from parma_wire.errors import NotFound


class ExitStatus(NamedTuple):
    """How a process ended; ``code`` is 128 + signal for a killed one."""

    code: int
    oom_killed: bool


class Process:
    """One process, held by pidfd: a signal can never reach another process that got the same number."""

    def __init__(
        self,
        container: ContainerId,
        exec_id: ExecId,
        args: tuple[str, ...],
        child: Child,
        pidfd: int | None,
        stdio: Stdio,
    ) -> None:
        self.container = container
        self.exec_id = exec_id
        self.args = args
        self.pid = child.pid
        self.stdio = stdio
        self._child = child
        self._pidfd = pidfd
        self._lock = threading.Lock()
        self._oom_killed = False

    def watch(self, oom_killed: Callable[[int], bool]) -> None:
        """Asks ``oom_killed(status)`` when the process exits, before anyone learns of it."""

        def note(status: int) -> None:
            self._oom_killed = oom_killed(status)

        self._child.on_exit(note)

    def on_exit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back when it exits, at once if it has. The function returned takes the callback back."""
        return self._child.on_exit(lambda _status: callback())

    @property
    def exited(self) -> bool:
        """True once `wait` does not block."""
        return self._child.exited

    @property
    def alive(self) -> bool:
        """True as long as its number is surely its own: it has not ended, not even without anybody having noticed."""
        with self._lock:
            if self._child.exited or self._pidfd is None:
                return not self._child.exited
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return not poll.poll(0)

    def wait(self, timeout: float | None = None) -> ExitStatus | None:
        """Blocks until it exits; None when it has not in time."""
        code = self._child.wait(timeout)
        return None if code is None else ExitStatus(code, self._oom_killed)

    def signal(self, number: int) -> None:
        """Raises `NotFound` when the process has exited."""
        with self._lock:
            if self._child.exited or self._pidfd is None:
                raise NotFound("process already finished")
            try:
                signals.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError as error:
                raise NotFound("process already finished") from error

    def close(self) -> None:
        """Gives up its descriptors."""
        self.stdio.close()
        with self._lock:
            pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)
