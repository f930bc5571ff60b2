# SPDX-License-Identifier: Apache-2.0
"""The structures of /dev/sev-guest, byte for byte as the kernel's header and the firmware's ABI have them."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from parma_guest import sevguest
from parma_guest.sevguest import GuestRequest, ReportRequest, SevGuest
from parma_wire.errors import Malformed, Unavailable

DATA = bytes(range(64))
REPORT = bytes(range(148)) * 8


class FakeSevGuestDevice:
    """What the kernel does for the three ioctls: reads and writes the caller's memory."""

    def __init__(self, response: bytes = b"", fail: int = 0, exit_info: int = 0) -> None:
        self.response = response
        self.fail = fail
        self.exit_info = exit_info
        self.calls: list[tuple[int, bytes]] = []

    def ioctl(self, _descriptor: int, request: int, argument: bytearray) -> int:
        version, theirs, answer, _ = GuestRequest.unpack(bytes(argument))
        assert version == 1
        size = 32 if request == sevguest.SNP_GET_DERIVED_KEY else 96
        self.calls.append((request, ctypes.string_at(theirs, size)))
        ctypes.memmove(answer, self.response, len(self.response))
        argument[24:32] = self.exit_info.to_bytes(8, "little")
        if self.fail:
            raise OSError(self.fail, os.strerror(self.fail))
        return 0

    def client(self) -> SevGuest:
        return SevGuest(Path(os.devnull), self.ioctl)


def test_numbers_are_those_of_the_header() -> None:
    # _IOWR('S', n, struct snp_guest_request_ioctl), which has 32 bytes
    for number, command in enumerate(
        (sevguest.SNP_GET_REPORT, sevguest.SNP_GET_DERIVED_KEY, sevguest.SNP_GET_EXT_REPORT)
    ):
        assert command == (3 << 30) | (32 << 16) | (ord("S") << 8) | number


def test_structures_have_their_fields_where_the_header_has_them() -> None:
    request = GuestRequest(1, 0x1122, 0x3344, 5 | 7 << 32).pack()
    assert request == bytes.fromhex("0100000000000000 2211000000000000 4433000000000000 0500000007000000")
    assert GuestRequest.unpack(request) == (1, 0x1122, 0x3344, 5 | 7 << 32)
    plain = ReportRequest(DATA, 2).pack()
    assert plain == DATA + bytes.fromhex("02000000") + bytes(28)
    extended = ReportRequest(DATA, 2, 0x1000, 0x2000).pack_extended()
    assert extended == plain + bytes.fromhex("0010000000000000 00200000 00000000")
    assert ReportRequest.unpack(plain) == (DATA, 2, 0, 0)
    assert ReportRequest.unpack(extended) == (DATA, 2, 0x1000, 0x2000)
    key = sevguest.pack_derived_key_request(9, vmpl=1)
    assert key == bytes.fromhex("00000000 00000000 0900000000000000 01000000 00000000 0000000000000000")
    response = sevguest.pack_report_response(REPORT)
    assert len(response) == 4000
    assert response[:32] == bytes.fromhex("00000000 a0040000") + bytes(24)
    assert sevguest.unpack_report_response(response) == REPORT


@pytest.mark.parametrize("size", [0, 31, 33, 95, 97, 111, 113])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(Malformed):
        GuestRequest.unpack(bytes(size))
    with pytest.raises(Malformed):
        ReportRequest.unpack(bytes(size))


def test_the_client_asks_and_reads_the_answer() -> None:
    device = FakeSevGuestDevice(sevguest.pack_report_response(REPORT))
    assert device.client().report(DATA, 3) == REPORT
    assert device.calls == [(sevguest.SNP_GET_REPORT, ReportRequest(DATA, 3).pack())]
    keys = FakeSevGuestDevice(bytes(32) + b"k" * 32)
    assert keys.client().derived_key(9) == b"k" * 32
    assert keys.calls == [(sevguest.SNP_GET_DERIVED_KEY, sevguest.pack_derived_key_request(9))]


def test_what_the_firmware_says_no_to_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="0x16"):
        FakeSevGuestDevice((0x16).to_bytes(4, "little") + bytes(60)).client().derived_key(9)
    with pytest.raises(Unavailable, match="0x27"):
        FakeSevGuestDevice((0x27).to_bytes(4, "little") + bytes(3996)).client().report(DATA, 0)
    with pytest.raises(Malformed):
        FakeSevGuestDevice(bytes(4000)).client().report(DATA, 0)


def test_errors_name_both_codes_and_what_to_do() -> None:
    with pytest.raises(Unavailable, match="firmware error 0x16, hypervisor error 0x2") as caught:
        FakeSevGuestDevice(fail=errno.EIO, exit_info=0x16 | 2 << 32).client().report(DATA, 0)
    assert "SEV-SNP guest" in caught.value.hint
    with pytest.raises(Unavailable) as caught:
        FakeSevGuestDevice(fail=errno.ENOTTY).client().report(DATA, 0)
    assert "started again" in caught.value.hint
    with pytest.raises(Unavailable):
        SevGuest(Path("/nonexistent/sev-guest")).report(DATA, 0)
