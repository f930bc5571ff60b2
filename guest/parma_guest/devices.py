# SPDX-License-Identifier: Apache-2.0
"""From a SCSI LUN to a block device.

The name that is found here means nothing for trust: whatever the host attaches at a LUN is either checked block by
block (dm-verity) or overwritten with ciphertext (scratch).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from parma_wire.errors import DeadlineExceeded, Malformed, NotFound

SYSFS: Final = Path("/sys")
APPEAR_TIMEOUT: Final = 10.0
"""Seconds to wait for a disk that was attached a moment ago."""

_POLL: Final = 0.01


class Devices(Protocol):
    """Block devices that the host attached."""

    def find(self, lun: int) -> str:
        """Path of the block device at this LUN; waits for it to appear."""

    def forget(self, device: str) -> None:
        """Makes the kernel drop the device, so that another one may be attached at the same LUN."""

    def size(self, device: str) -> int:
        """Bytes."""


class ScsiDevices:
    """`Devices` on the virtio-scsi controller, through sysfs."""

    def __init__(
        self,
        size: Callable[[str], int],
        *,
        sysfs: Path = SYSFS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._size = size
        self._sysfs = sysfs
        self._clock = clock
        self._sleep = sleep

    def find(self, lun: int) -> str:
        """Raises `NotFound` or `DeadlineExceeded` when nothing appears, `Malformed` when the LUN is not unique."""
        deadline = self._clock() + APPEAR_TIMEOUT
        scanned = False
        while True:
            found = self._look(lun)
            if len(found) > 1:
                raise Malformed(f"LUN {lun} is ambiguous", expected="one SCSI controller with one target")
            if found and self._answers(f"/dev/{found[0]}"):
                return f"/dev/{found[0]}"
            if not found and not scanned:
                self._scan(lun)
                scanned = True
                continue
            if self._clock() > deadline:
                raise DeadlineExceeded(f"no disk appeared at LUN {lun}", expected=f"one within {APPEAR_TIMEOUT:.0f} s")
            self._sleep(_POLL)

    def forget(self, device: str) -> None:
        """Nothing happens when the device is gone already."""
        try:
            (self._sysfs / "block" / Path(device).name / "device/delete").write_text("1")
        except FileNotFoundError:
            return

    def size(self, device: str) -> int:
        """Raises `NotFound` when the device has gone."""
        try:
            return self._size(device)
        except OSError as error:
            raise NotFound("the disk has gone") from error

    def _answers(self, device: str) -> bool:
        """The name in sysfs comes before the node in /dev, and that before the disk is ready to be opened."""
        try:
            return self._size(device) > 0
        except OSError:
            return False

    def _look(self, lun: int) -> list[str]:
        return [path.name for path in self._sysfs.glob(f"bus/scsi/devices/*:0:0:{lun}/block/*")]

    def _scan(self, lun: int) -> None:
        for path in self._sysfs.glob("class/scsi_host/host*/scan"):
            path.write_text(f"0 0 {lun}")
