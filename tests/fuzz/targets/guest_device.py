# SPDX-License-Identifier: Apache-2.0
"""Messages of the kernel's CUSE, whose contents a container chooses: an answer of its own length, or `Malformed`."""

from __future__ import annotations

import struct

from parma_guest import sevguest
from parma_guest.attest import cuse, fuse
from parma_guest.sevguest import GuestRequest, ReportRequest
from parma_wire.errors import Malformed

_REPORT = bytes(1184)
_CERTS = bytes(5000)


def _message(command: int, data: bytes, room: int) -> bytes:
    body = struct.pack("<QIIQII", 1, 0, command, 0x1000, len(data), room) + data
    return struct.pack("<IIQQIIIHH", 40 + len(body), fuse.IOCTL, 7, 0, 0, 0, 1, 0, 0) + body


_GUEST = GuestRequest(1, 0x2000, 0x3000).pack()
_WANTED = ReportRequest(bytes(64), 0, 0x4000, 0x2000)

SEEDS = (
    _message(sevguest.SNP_GET_REPORT, b"", 0),
    _message(sevguest.SNP_GET_REPORT, _GUEST, 32),
    _message(sevguest.SNP_GET_REPORT, _GUEST + _WANTED.pack(), 4032),
    _message(sevguest.SNP_GET_EXT_REPORT, _GUEST + _WANTED.pack_extended(), 4032),
    _message(sevguest.SNP_GET_EXT_REPORT, _GUEST + _WANTED.pack_extended(), 4032 + len(_CERTS)),
    _message(sevguest.SNP_GET_DERIVED_KEY, b"", 0),
)


def target(data: bytes) -> None:
    """One message."""
    try:
        answer = cuse.answer(data, lambda report_data, vmpl: _REPORT if report_data and vmpl < 4 else b"", _CERTS)
    except Malformed:
        return
    length, error, _ = struct.unpack_from("<IiQ", answer)
    assert length == len(answer)
    assert -4096 < error <= 0
