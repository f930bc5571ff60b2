# SPDX-License-Identifier: Apache-2.0
"""A container's writable space: guest memory, or a nameless sparse file that the guest encrypts."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Final

from parma_shim.config import Config
from parma_shim.vm import disks
from parma_shim.vm.session import Session
from parma_shim.vm.undo import Undo

_MIB: Final = 1 << 20


def mount_scratch(session: Session, guest_id: str, config: Config, undo: Undo, end: float) -> None:
    """Makes it, of the configured size; ``undo`` learns how to take it away."""
    size = config.scratch_mib * _MIB
    if config.scratch == "memory":
        session.guest.mount_scratch_memory(guest_id, size, deadline=end)
    else:
        fd = disks.open_scratch(config.data_dir / "scratch", size)
        try:
            lun = session.machine.attach_descriptor(fd, readonly=False, deadline=end)
        finally:
            os.close(fd)
        undo.push("detaching the scratch disk", partial(_detach, session, lun, config.call_timeout))
        session.guest.mount_scratch_disk(guest_id, lun, deadline=end)
    undo.push("unmounting the scratch space", partial(session.guest.unmount_scratch, guest_id))


def _detach(session: Session, lun: int, timeout: float) -> None:
    session.machine.detach_disk(lun, deadline=time.monotonic() + timeout)
