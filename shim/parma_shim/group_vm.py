# SPDX-License-Identifier: Apache-2.0
"""The VM that a container group has at a time, if any: what is asked of it while others wait for its guest.

Lock contract: ``_lock`` guards the fields; nothing is waited for and no callback runs under it. So none of this ever
waits for a guest that is stuck. Booting, and forgetting what was booted, is for one thread at a time.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

from parma_shim.vm.machine import ExitCallback, VirtualMachine
from parma_shim.vm.session import Session
from parma_wire.errors import FailedPrecondition


class GroupVm:
    """From the first process to the end of the last. Safe for several threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._machine: VirtualMachine | None = None
        self._session: Session | None = None
        self._killed = False
        self._exit_callbacks: list[ExitCallback] = []

    @property
    def pid(self) -> int:
        """QEMU's process id, 0 when there is no VM."""
        with self._lock:
            return self._machine.pid if self._machine is not None else 0

    @property
    def memory_mib(self) -> int:
        """Memory that the VM was given, 0 when there is none."""
        with self._lock:
            return self._machine.spec.memory_mib if self._machine is not None else 0

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of each part of the VM's start."""
        with self._lock:
            return dict(self._session.timings) if self._session is not None else {}

    @property
    def killed(self) -> bool:
        """Whether it was to end, since the last container was begun."""
        with self._lock:
            return self._killed

    def session(self) -> Session:
        """The VM that has accepted its policy. Raises FailedPrecondition when there is none."""
        with self._lock:
            session = self._session
        if session is None:
            raise FailedPrecondition("the container group has no VM")
        return session

    def on_exit(self, callback: ExitCallback) -> None:
        """Call back, once for each VM that had been booted, when it has ended for whatever reason."""
        with self._lock:
            self._exit_callbacks.append(callback)

    def kill(self) -> None:
        """End the VM now, also one that is booting. Returns at once; idempotent."""
        with self._lock:
            self._killed = True
            machine = self._machine
        if machine is not None:
            machine.kill()

    def kill_if_booting(self) -> None:
        """End a VM that has no policy yet, or is about to be started."""
        with self._lock:
            machine = self._machine if self._session is None else None
            self._killed = self._session is None
        if machine is not None:
            machine.kill()

    def want(self) -> None:
        """A container is begun: what was killed before is no reason to kill what boots now."""
        with self._lock:
            self._killed = False

    def started(self, machine: VirtualMachine) -> None:
        """QEMU runs."""
        with self._lock:
            self._machine = machine
            killed = self._killed
        if killed:
            machine.kill()

    def booted(self, session: Session) -> None:
        """The guest has accepted its policy."""
        with self._lock:
            self._session = session
        session.machine.on_exit(partial(self._ended, session))

    def forget(self) -> None:
        """There is no VM, and the end of the one that there was is of no interest."""
        with self._lock:
            self._session = self._machine = None

    def _ended(self, session: Session, status: int | None) -> None:
        with self._lock:
            callbacks = list(self._exit_callbacks) if self._session is session else []
        for callback in callbacks:
            callback(status)
