# SPDX-License-Identifier: Apache-2.0
"""The device that containers get, against a model of the kernel's side of CUSE; every byte of a caller is hostile."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_guest import sevguest
from parma_guest.attest import cuse, fuse
from parma_guest.sevguest import GuestRequest, ReportRequest
from parma_wire.errors import Malformed, Unavailable

DATA = bytes(range(64))
REPORT = bytes(range(148)) * 8
CERTS = b"table of certificates" * 300


def header(opcode: int, body: bytes = b"", unique: int = 7) -> bytes:
    return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, 0, 1, 2, 3, 0, 0) + body


class KernelModel:
    """Carries an ioctl through its rounds as fs/fuse/file.c does, over the memory of one caller.

    ``change`` is called between rounds: a caller may change its memory meanwhile.
    """

    def __init__(self, certs: bytes = b"") -> None:
        self.memory = bytearray(1 << 16)
        self.certs = certs
        self.reports: list[tuple[bytes, int]] = []
        self.change: Callable[[], None] = lambda: None
        self.rounds = 0

    def fetch(self, report_data: bytes, vmpl: int) -> bytes:
        self.reports.append((report_data, vmpl))
        return REPORT

    def ioctl(self, command: int, argument: int) -> int:
        """The result, or a negative errno."""
        reads: list[tuple[int, int]] = []
        writes: list[tuple[int, int]] = []
        for _ in range(10):
            self.rounds += 1
            data = b""
            for address, length in reads:
                if address + length > len(self.memory):
                    return -errno.EFAULT
                data += self.memory[address : address + length]
            room = sum(length for _, length in writes)
            body = struct.pack("<QIIQII", 1, 2, command, argument, len(data), room) + data
            answer = cuse.answer(header(fuse.IOCTL, body), self.fetch, self.certs)
            length, error, unique = struct.unpack_from("<IiQ", answer)
            assert (length, error, unique) == (len(answer), 0, 7)
            result, flags, count_in, count_out = struct.unpack_from("<iIII", answer, 16)
            tail = answer[32:]
            if not flags & 4:
                return self._finish(result, tail, writes, room)
            assert len(tail) == 16 * (count_in + count_out)
            ranges = [struct.unpack_from("<QQ", tail, 16 * index) for index in range(count_in + count_out)]
            reads, writes = ranges[:count_in], ranges[count_in:]
            self.change()
        pytest.fail("the ioctl never ends")

    def _finish(self, result: int, data: bytes, writes: list[tuple[int, int]], room: int) -> int:
        assert len(data) <= room, "the kernel refuses more than was asked for"
        for address, length in writes:
            piece, data = data[:length], data[length:]
            if address + len(piece) > len(self.memory):
                return -errno.EFAULT
            self.memory[address : address + len(piece)] = piece
        return result

    def put(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def get(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address : address + size])

    def ask(self, command: int, request: ReportRequest, *, version: int = 1) -> int:
        self.put(0x100, GuestRequest(version, 0x200, 0x1000, 0xFF).pack())
        self.put(0x200, request.pack_extended() if command == sevguest.SNP_GET_EXT_REPORT else request.pack())
        return self.ioctl(command, 0x100)

    @property
    def exit_info(self) -> int:
        return GuestRequest.unpack(self.get(0x100, 32)).exit_info


def test_a_report_takes_three_rounds_and_lands_where_it_was_wanted() -> None:
    kernel = KernelModel()
    assert kernel.ask(sevguest.SNP_GET_REPORT, ReportRequest(DATA, 2)) == 0
    assert kernel.rounds == 3
    assert kernel.reports == [(DATA, 2)]
    assert kernel.exit_info == 0
    assert sevguest.unpack_report_response(kernel.get(0x1000, 4000)) == REPORT


def test_derived_keys_and_anything_unknown_do_not_exist() -> None:
    kernel = KernelModel()
    for command in (sevguest.SNP_GET_DERIVED_KEY, 0, 0xC0205303, 0xFFFFFFFF):
        assert kernel.ioctl(command, 0x100) == -errno.ENOTTY
    assert kernel.rounds == 4
    assert kernel.reports == []


@pytest.mark.parametrize(
    "guest", [GuestRequest(0, 0x200, 0x1000), GuestRequest(1, 0, 0x1000), GuestRequest(1, 0x200, 0)]
)
def test_a_request_that_lacks_something_is_invalid(guest: GuestRequest) -> None:
    kernel = KernelModel()
    kernel.put(0x100, guest.pack())
    assert kernel.ioctl(sevguest.SNP_GET_REPORT, 0x100) == -errno.EINVAL


def test_addresses_that_lead_nowhere_are_the_callers_fault() -> None:
    kernel = KernelModel()
    assert kernel.ioctl(sevguest.SNP_GET_REPORT, 1 << 40) == -errno.EFAULT
    kernel.put(0x100, GuestRequest(1, 1 << 47, 0x1000).pack())
    assert kernel.ioctl(sevguest.SNP_GET_REPORT, 0x100) == -errno.EFAULT
    kernel.put(0x100, GuestRequest(1, 0x200, (1 << 64) - 1).pack())
    assert kernel.ioctl(sevguest.SNP_GET_REPORT, 0x100) == -errno.EFAULT


def test_a_vmpl_out_of_range_is_the_firmwares_refusal() -> None:
    kernel = KernelModel()
    assert kernel.ask(sevguest.SNP_GET_REPORT, ReportRequest(DATA, 4)) == -errno.EIO
    assert kernel.exit_info == 0x16
    assert kernel.reports == []


def test_no_report_is_an_error_of_the_device() -> None:
    class Failing(KernelModel):
        def fetch(self, report_data: bytes, vmpl: int) -> bytes:
            raise Unavailable(f"secret details about {report_data!r} and {vmpl}")

    kernel = Failing()
    assert kernel.ask(sevguest.SNP_GET_REPORT, ReportRequest(DATA, 0)) == -errno.EIO
    assert b"secret" not in kernel.memory


def test_an_extended_report_brings_the_certificates() -> None:
    kernel = KernelModel(CERTS)
    request = ReportRequest(DATA, 0, 0x4000, 0x2000)
    assert kernel.ask(sevguest.SNP_GET_EXT_REPORT, request) == 0
    assert kernel.rounds == 4
    assert sevguest.unpack_report_response(kernel.get(0x1000, 4000)) == REPORT
    assert kernel.get(0x4000, len(CERTS)) == CERTS


@pytest.mark.parametrize("place", [(0, 0), (0x4000, 0), (0x4000, 0x1000), (0, 0x2000)])
def test_too_little_room_for_certificates_says_how_much_it_takes(place: tuple[int, int]) -> None:
    kernel = KernelModel(CERTS)
    assert kernel.ask(sevguest.SNP_GET_EXT_REPORT, ReportRequest(DATA, 0, *place)) == -errno.EIO
    assert kernel.exit_info == sevguest.VMM_INVALID_LENGTH << 32
    assert ReportRequest.unpack(kernel.get(0x200, 112)).certs_length == 0x2000
    assert kernel.reports == []


@pytest.mark.parametrize("length", [1, 0x2001, 0x5000, 0xFFFFF000])
def test_an_odd_length_for_certificates_is_invalid(length: int) -> None:
    kernel = KernelModel(CERTS)
    assert kernel.ask(sevguest.SNP_GET_EXT_REPORT, ReportRequest(DATA, 0, 0x4000, length)) == -errno.EINVAL


def test_without_certificates_an_extended_report_is_a_plain_one() -> None:
    kernel = KernelModel()
    assert kernel.ask(sevguest.SNP_GET_EXT_REPORT, ReportRequest(DATA, 0)) == 0
    assert sevguest.unpack_report_response(kernel.get(0x1000, 4000)) == REPORT


def test_reading_and_writing_the_device_is_invalid_and_the_rest_unknown() -> None:
    def errno_of(opcode: int) -> int:
        return -int(struct.unpack_from("<i", cuse.answer(header(opcode), KernelModel().fetch), 4)[0])

    assert errno_of(fuse.READ) == errno.EINVAL
    assert errno_of(fuse.WRITE) == errno.EINVAL
    assert errno_of(fuse.OPEN) == 0
    assert errno_of(fuse.RELEASE) == 0
    assert errno_of(40) == errno.ENOSYS  # FUSE_POLL: the kernel then polls no more
    assert errno_of(36) == errno.ENOSYS  # FUSE_INTERRUPT likewise


@given(
    memory=st.binary(min_size=0x400, max_size=0x400),
    command=st.sampled_from((sevguest.SNP_GET_REPORT, sevguest.SNP_GET_EXT_REPORT)),
    argument=st.integers(0, 0x500),
    certs=st.sampled_from((b"", CERTS)),
    changes=st.lists(st.tuples(st.integers(0, 0x400), st.binary(min_size=1, max_size=40)), max_size=4),
)
def test_no_memory_and_no_change_of_it_gets_more_than_an_error_or_a_report(
    memory: bytes, command: int, argument: int, certs: bytes, changes: list[tuple[int, bytes]]
) -> None:
    kernel = KernelModel(certs)
    kernel.put(0, memory)
    pending = iter(changes)

    def change() -> None:
        address, data = next(pending, (0, b""))
        kernel.put(address, data)

    kernel.change = change
    assert kernel.ioctl(command, argument) in (0, -errno.EFAULT, -errno.EINVAL, -errno.EIO)


@given(st.binary(max_size=200))
def test_messages_that_no_kernel_sends_are_malformed_or_answered(body: bytes) -> None:
    for message in (body, header(fuse.IOCTL, body)):
        try:
            answer = cuse.answer(message, lambda _data, _vmpl: REPORT)
        except Malformed:
            continue
        assert struct.unpack_from("<I", answer)[0] == len(answer)


def test_the_handshake_names_the_device_and_asks_for_unrestricted_ioctls() -> None:
    request = fuse.parse(header(fuse.CUSE_INIT, struct.pack("<IIII", 7, 41, 0, 1)))
    answer = fuse.cuse_init_reply(request, "sev-guest")
    assert struct.unpack_from("<IiQ", answer) == (len(answer), 0, 7)
    assert struct.unpack_from("<IIIIIIII", answer, 16) == (7, 31, 0, 1, 4096, 4096, 0, 0)
    assert answer[16 + 72 :] == b"DEVNAME=sev-guest\0"
    for body in (struct.pack("<IIII", 7, 30, 0, 1), struct.pack("<IIII", 7, 41, 0, 0), b""):
        with pytest.raises(Malformed):
            fuse.cuse_init_reply(fuse.parse(header(fuse.CUSE_INIT, body)), "x")
    with pytest.raises(Malformed):
        fuse.cuse_init_reply(fuse.parse(header(fuse.OPEN, bytes(16))), "x")


def test_a_device_is_registered_with_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "dev-name").mkdir()
    (tmp_path / "dev-name/dev").write_text("244:3\n")
    control = tmp_path / "cuse"
    control.write_bytes(header(fuse.CUSE_INIT, struct.pack("<IIII", 7, 41, 0, 1)))
    node = cuse.register("dev-name", control=control, sysfs=tmp_path)
    assert (node.major, node.minor) == (244, 3)
    os.close(node.descriptor)
    with pytest.raises(Unavailable):
        cuse.register("other", control=control, sysfs=tmp_path)
    with pytest.raises(Unavailable, match="no CUSE"):
        cuse.register("dev-name", control=tmp_path / "absent", sysfs=tmp_path)
