# SPDX-License-Identifier: Apache-2.0
"""A container's ``/dev/sev-guest``: the real ioctl interface, answered in user space (CUSE).

Both with a real and an emulated secure processor it is this device that containers get, because the real one would
hand out derived keys, which are the same for every policy on an image: SNP_GET_DERIVED_KEY is refused here (ENOTTY,
as by a kernel that does not know it).

An ioctl takes three rounds, and no state between them: the kernel passes the address of the argument, then 32 bytes
of it, then those again with what they point to. A caller that changes its memory meanwhile deceives only itself: the
addresses are its own, and the kernel checks every access to them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from parma_guest import sevguest
from parma_guest.attest import fuse
from parma_guest.attest.fuse import Range
from parma_guest.sevguest import GuestRequest, ReportRequest
from parma_wire.errors import Malformed, ParmaError, Unavailable

CONTROL: Final = Path("/dev/cuse")
SYSFS: Final = Path("/sys/class/cuse")

PAGE: Final = 4096
MAX_CERTS: Final = 4 * PAGE
"""``SEV_FW_BLOB_MAX_SIZE``: what an extended report has room for."""

FetchReport = Callable[[bytes, int], bytes]
"""The report (1184 bytes) for 64 bytes of REPORT_DATA and a VMPL; raises `ParmaError`."""

_SIZES: Final = {
    sevguest.SNP_GET_REPORT: sevguest.REPORT_REQUEST_SIZE,
    sevguest.SNP_GET_EXT_REPORT: sevguest.EXT_REPORT_REQUEST_SIZE,
}
_FIRMWARE_INVALID_PARAMETER: Final = 0x16


class Node(NamedTuple):
    """A character device that exists, and the descriptor over which it is served. Closing that ends the device."""

    descriptor: int
    major: int
    minor: int


def register(name: str, *, control: Path = CONTROL, sysfs: Path = SYSFS) -> Node:
    """Makes the device. Until someone serves it, whoever opens it waits. Raises `Unavailable`."""
    try:
        descriptor = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("the guest's kernel has no CUSE") from error
    try:
        request = fuse.parse(os.read(descriptor, fuse.MAX_REQUEST))
        os.write(descriptor, fuse.cuse_init_reply(request, name))  # the device exists when this returns
        major, _, minor = (sysfs / name / "dev").read_text().strip().partition(":")
        return Node(descriptor, int(major), int(minor))
    except (OSError, ValueError, Malformed) as error:
        os.close(descriptor)
        raise Unavailable("the device for reports cannot be made") from error


def answer(message: bytes, fetch: FetchReport, certs: bytes = b"") -> bytes:
    """The reply to one message of the kernel's. ``certs`` is the certificate table for extended reports.

    Raises `Malformed` for what only a broken kernel sends.
    """
    request = fuse.parse(message)
    if request.opcode == fuse.OPEN:
        return fuse.open_reply(request.unique)
    if request.opcode == fuse.RELEASE:
        return fuse.reply(request.unique)
    if request.opcode == fuse.IOCTL:
        return _ioctl(request.unique, fuse.parse_ioctl(request.body), fetch, certs)
    if request.opcode in (fuse.READ, fuse.WRITE):
        return fuse.failure(request.unique, errno.EINVAL)
    return fuse.failure(request.unique, errno.ENOSYS)


def _ioctl(unique: int, call: fuse.Ioctl, fetch: FetchReport, certs: bytes) -> bytes:
    size = _SIZES.get(call.command)
    if size is None:
        return fuse.ioctl_reply(unique, -errno.ENOTTY)
    argument = Range(call.argument, sevguest.REQUEST_SIZE)
    if not call.data:
        return fuse.ioctl_retry(unique, (argument,), (argument,))
    guest_request = GuestRequest.unpack(call.data[: sevguest.REQUEST_SIZE])
    if not guest_request.version or not guest_request.request or not guest_request.response:
        return fuse.ioctl_reply(unique, -errno.EINVAL)
    theirs = Range(guest_request.request, size)
    response = Range(guest_request.response, sevguest.REPORT_RESPONSE_SIZE)
    if len(call.data) == sevguest.REQUEST_SIZE:
        return fuse.ioctl_retry(unique, (argument, theirs), (argument, response))
    report_request = ReportRequest.unpack(call.data[sevguest.REQUEST_SIZE :])
    if call.command == sevguest.SNP_GET_REPORT or not certs:
        return _report(unique, guest_request, report_request, fetch)
    return _extended(unique, call, (argument, theirs, response), report_request, fetch, certs)


def _report(unique: int, guest: GuestRequest, wanted: ReportRequest, fetch: FetchReport, tail: bytes = b"") -> bytes:
    """The report to where it is wanted; ``tail`` follows it."""
    if wanted.vmpl > sevguest.MAX_VMPL:
        return _refused(unique, guest, _FIRMWARE_INVALID_PARAMETER)
    try:
        report = fetch(wanted.report_data, wanted.vmpl)
    except ParmaError:
        return _refused(unique, guest, 0xFF)  # as Linux says before it has asked the firmware
    done = guest._replace(exit_info=0).pack()
    return fuse.ioctl_reply(unique, 0, done + sevguest.pack_report_response(report) + tail)


def _extended(
    unique: int,
    call: fuse.Ioctl,
    places: tuple[Range, Range, Range],
    wanted: ReportRequest,
    fetch: FetchReport,
    certs: bytes,
) -> bytes:
    """With certificates, which need one round more: now that it is known where the caller wants them."""
    argument, theirs, response = places
    guest = GuestRequest.unpack(call.data[: sevguest.REQUEST_SIZE])
    needed = -(-len(certs) // PAGE) * PAGE
    if wanted.certs_length % PAGE or wanted.certs_length > MAX_CERTS:
        return fuse.ioctl_reply(unique, -errno.EINVAL)
    if not wanted.certs_address or wanted.certs_length < needed:
        sized = wanted._replace(certs_length=needed).pack_extended()
        if call.out_size != argument.length + theirs.length:
            return fuse.ioctl_retry(unique, (argument, theirs), (argument, theirs))
        told = guest._replace(exit_info=sevguest.VMM_INVALID_LENGTH << 32).pack()
        return fuse.ioctl_reply(unique, -errno.EIO, told + sized)
    place = Range(wanted.certs_address, len(certs))
    if call.out_size != argument.length + response.length + place.length:
        return fuse.ioctl_retry(unique, (argument, theirs), (argument, response, place))
    return _report(unique, guest, wanted, fetch, certs)


def _refused(unique: int, guest: GuestRequest, firmware_error: int) -> bytes:
    return fuse.ioctl_reply(unique, -errno.EIO, guest._replace(exit_info=firmware_error).pack())
