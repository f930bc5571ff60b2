# SPDX-License-Identifier: Apache-2.0
"""Makes a pod's emptyDirs in the guest, each when the first container wants it. They stay for the life of the VM.

Not thread-safe: called by whoever creates containers, one at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from parma_shim import pod_volumes
from parma_shim.config import Config
from parma_shim.guest import GuestClient
from parma_shim.pod_volumes import EmptyDir
from parma_shim.vm import disks
from parma_shim.vm.machine import VirtualMachine

_MIB: Final = 1 << 20
_MOUNTS: Final = Path("/proc/self/mounts")


class Volumes:
    """Those of one VM."""

    def __init__(self, machine: VirtualMachine, guest: GuestClient) -> None:
        self._machine = machine
        self._guest = guest
        self._made: set[str] = set()

    def make(
        self, wanted: Iterable[EmptyDir], annotations: Mapping[str, str], config: Config, *, deadline: float
    ) -> None:
        """Those that are not there yet. One that fails leaves nothing; those before it stay, for the next try."""
        limits = pod_volumes.limits(annotations)
        for volume in wanted:
            if volume.name not in self._made:
                self._make(volume, limits.get(volume.name, 0), config, deadline)
                self._made.add(volume.name)

    def _make(self, volume: EmptyDir, limit: int, config: Config, deadline: float) -> None:
        memory = pod_volumes.tmpfs_bytes(volume.source, _MOUNTS.read_text())
        most = self._machine.spec.memory_mib * _MIB
        if memory:
            size = max(_MIB, min(memory, limit or memory, most))
            self._guest.mount_volume_memory(volume.name, size, deadline=deadline)
            return
        limit = limit or config.volume_mib * _MIB
        if config.scratch == "memory":
            self._guest.mount_volume_memory(volume.name, max(_MIB, min(limit, most)), deadline=deadline)
            return
        fd = disks.open_scratch(config.data_dir / "scratch", pod_volumes.disk_bytes(limit))
        try:
            lun = self._machine.attach_descriptor(fd, readonly=False, deadline=deadline)
        finally:
            os.close(fd)
        try:
            self._guest.mount_volume_disk(volume.name, lun, deadline=deadline)
        except BaseException:
            self._machine.detach_disk(lun, deadline=time.monotonic() + config.call_timeout)
            raise
