# SPDX-License-Identifier: Apache-2.0
"""Which processor this host has and which firmware it runs, as its secure processor says: enough to ask AMD for the
certificate of its key before the first guest runs.

Sources: AMD publication 55766 (GET_ID) and 56860 (SNP_PLATFORM_STATUS); Linux, include/uapi/linux/psp-sev.h. Nobody
relies on this: a certificate proves itself by the reports that it verifies.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from parma_snp.errors import SnpError
from parma_snp.report import Product, Tcb, decode_tcb

CHIP_ID_SIZE: Final = 64
STATUS_SIZE: Final = 32
_DEVICE: Final = Path("/dev/sev")
_SEV_ISSUE_CMD: Final = 0xC0105300
_GET_ID2: Final = 8
_SNP_PLATFORM_STATUS: Final = 9
_ISSUE: Final = struct.Struct("=IQI")
_ID_REQUEST: Final = struct.Struct("=QI")
_STATUS: Final = struct.Struct("<BBBBIIIQQ")
_SOCKETS: Final = 2


class PlatformStatus(NamedTuple):
    """SNP_PLATFORM_STATUS. ``reported_tcb`` as 8 bytes; its layout depends on the product."""

    api: tuple[int, int]
    build: int
    guests: int
    reported_tcb: bytes

    def tcb(self, product: Product) -> Tcb:
        """REPORTED_TCB taken apart."""
        return decode_tcb(self.reported_tcb, product)


def decode_status(data: bytes) -> PlatformStatus:
    """From the 32 bytes of the answer. Raises SnpError ``host.platform``."""
    if len(data) != STATUS_SIZE:
        raise SnpError(
            "host.platform", "SNP_PLATFORM_STATUS has another size", expected="32 bytes", found=str(len(data))
        )
    major, minor, _state, _flags, build, _keys, guests, _current, reported = _STATUS.unpack(data)
    return PlatformStatus((major, minor), build, guests, reported.to_bytes(8, "little"))


def read_status(device: Path = _DEVICE) -> PlatformStatus:
    """Ask the secure processor. Raises SnpError ``host.platform``."""
    answer = ctypes.create_string_buffer(STATUS_SIZE)
    _command(device, _SNP_PLATFORM_STATUS, ctypes.addressof(answer), "SNP_PLATFORM_STATUS")
    return decode_status(answer.raw)


def read_chip_id(device: Path = _DEVICE) -> bytes:
    """CHIP_ID of the first socket (64 bytes), as it stands in reports. Raises SnpError ``host.platform``."""
    ids = ctypes.create_string_buffer(CHIP_ID_SIZE * _SOCKETS)
    request = ctypes.create_string_buffer(_ID_REQUEST.pack(ctypes.addressof(ids), len(ids)), _ID_REQUEST.size)
    _command(device, _GET_ID2, ctypes.addressof(request), "GET_ID2")
    chip_id = ids.raw[:CHIP_ID_SIZE]
    if not any(chip_id):
        raise SnpError("host.platform", "the secure processor gives no chip id")
    return chip_id


def _command(device: Path, command: int, address: int, name: str) -> None:
    """One SEV_ISSUE_CMD with its data at ``address``."""
    issue = bytearray(_ISSUE.pack(command, address, 0))
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _SEV_ISSUE_CMD, issue)
        finally:
            os.close(descriptor)
    except OSError as error:
        firmware = _ISSUE.unpack(issue)[2]
        found = f"{error.strerror}" + (f", firmware error {firmware:#x}" if firmware else "")
        hint = "`parma doctor --tee snp` says why"
        raise SnpError("host.platform", f"{device} does not answer {name}", found=found, hint=hint) from None
