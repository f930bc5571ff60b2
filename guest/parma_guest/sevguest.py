# SPDX-License-Identifier: Apache-2.0
"""The ioctls of ``/dev/sev-guest``: their structures, as pure functions, and a client of the real device.

Sources: Linux ``include/uapi/linux/sev-guest.h``; the messages inside are MSG_REPORT_REQ, MSG_REPORT_RSP, MSG_KEY_REQ
and MSG_KEY_RSP of the SEV-SNP firmware ABI (AMD publication 56860, chapter 7). All numbers are little endian.
The other side of the same structures, the device that containers see, is `parma_guest.attest.cuse`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from parma_wire.errors import Malformed, Unavailable

DEVICE: Final = Path("/dev/sev-guest")

SNP_GET_REPORT: Final = 0xC0205300
SNP_GET_DERIVED_KEY: Final = 0xC0205301
SNP_GET_EXT_REPORT: Final = 0xC0205302

REQUEST_SIZE: Final = 32
"""Bytes of ``struct snp_guest_request_ioctl``, the argument of all three."""
REPORT_REQUEST_SIZE: Final = 96
EXT_REPORT_REQUEST_SIZE: Final = 112
REPORT_RESPONSE_SIZE: Final = 4000
DERIVED_KEY_REQUEST_SIZE: Final = 32
DERIVED_KEY_RESPONSE_SIZE: Final = 64

REPORT_SIZE: Final = 1184
REPORT_DATA_SIZE: Final = 64
KEY_SIZE: Final = 32
MAX_VMPL: Final = 3
MESSAGE_VERSION: Final = 1

FIELD_POLICY: Final = 1 << 0
FIELD_MEASUREMENT: Final = 1 << 3
ROOT_VCEK: Final = 0

VMM_INVALID_LENGTH: Final = 1
"""``SNP_GUEST_VMM_ERR_INVALID_LEN``: the buffer for certificates is too small."""

_REQUEST: Final = struct.Struct("<B7xQQQ")
_REPORT_REQUEST: Final = struct.Struct("<64sI28x")
_EXT_REPORT_REQUEST: Final = struct.Struct("<64sI28xQI4x")
_REPORT_RESPONSE: Final = struct.Struct("<II24x")
_DERIVED_KEY_REQUEST: Final = struct.Struct("<IIQIIQ")
_DERIVED_KEY_RESPONSE: Final = struct.Struct("<I28x32s")


class GuestRequest(NamedTuple):
    """``struct snp_guest_request_ioctl``; ``request`` and ``response`` are addresses in the caller's memory."""

    version: int
    request: int
    response: int
    exit_info: int = 0
    """Firmware error in the lower 32 bits, the hypervisor's in the upper."""

    def pack(self) -> bytes:
        """32 bytes."""
        return _REQUEST.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> GuestRequest:
        """From 32 bytes. Raises `Malformed`."""
        return cls(*_REQUEST.unpack(_exactly(data, REQUEST_SIZE)))


class ReportRequest(NamedTuple):
    """``struct snp_report_req``, and what ``struct snp_ext_report_req`` has more."""

    report_data: bytes
    vmpl: int
    certs_address: int = 0
    certs_length: int = 0

    def pack(self) -> bytes:
        """96 bytes."""
        return _REPORT_REQUEST.pack(self.report_data, self.vmpl)

    def pack_extended(self) -> bytes:
        """112 bytes."""
        return _EXT_REPORT_REQUEST.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> ReportRequest:
        """From 96 bytes, or 112 of the extended form. Raises `Malformed`; reserved bytes mean nothing, as in Linux."""
        if len(data) == EXT_REPORT_REQUEST_SIZE:
            return cls(*_EXT_REPORT_REQUEST.unpack(data))
        return cls(*_REPORT_REQUEST.unpack(_exactly(data, REPORT_REQUEST_SIZE)))


def pack_report_response(report: bytes) -> bytes:
    """The 4000 bytes of a response with this report of 1184 bytes."""
    return (_REPORT_RESPONSE.pack(0, len(report)) + report).ljust(REPORT_RESPONSE_SIZE, b"\0")


def unpack_report_response(data: bytes) -> bytes:
    """The report in a response. Raises `Unavailable` where the firmware gives none, `Malformed`."""
    status, size = _REPORT_RESPONSE.unpack_from(_exactly(data, REPORT_RESPONSE_SIZE))
    if status:
        raise Unavailable(f"the secure processor refuses a report (status {status:#x})")
    if size != REPORT_SIZE:
        raise Malformed("the response has no report", expected=f"{REPORT_SIZE} bytes")
    return data[_REPORT_RESPONSE.size : _REPORT_RESPONSE.size + REPORT_SIZE]


def pack_derived_key_request(fields: int, *, root: int = ROOT_VCEK, vmpl: int = 0) -> bytes:
    """32 bytes: ``fields`` says what is mixed into the key. Neither the guest's nor the firmware's version is."""
    return _DERIVED_KEY_REQUEST.pack(root, 0, fields, vmpl, 0, 0)


def unpack_derived_key_response(data: bytes) -> bytes:
    """The 32 bytes of a derived key. Raises `Unavailable`."""
    status, key = _DERIVED_KEY_RESPONSE.unpack(_exactly(data, DERIVED_KEY_RESPONSE_SIZE))
    if status:
        raise Unavailable(f"the secure processor refuses a derived key (status {status:#x})")
    return bytes(key)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise Malformed("a structure of /dev/sev-guest has a bad size", expected=f"{size} bytes")
    return data


Ioctl = Callable[[int, int, bytearray], object]
"""``fcntl.ioctl`` with a buffer that is changed in place."""


def _ioctl(descriptor: int, request: int, argument: bytearray) -> object:
    return fcntl.ioctl(descriptor, request, argument)


class SevGuest:
    """A client of the device. It is opened for each request: the enforcer keeps nothing open that it seldom uses."""

    def __init__(self, path: Path = DEVICE, ioctl: Ioctl = _ioctl) -> None:
        self._path = path
        self._ioctl = ioctl

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """A report of 1184 bytes. Raises `Unavailable`."""
        request = ReportRequest(report_data, vmpl).pack()
        return unpack_report_response(self._exchange(SNP_GET_REPORT, request, REPORT_RESPONSE_SIZE))

    def derived_key(self, fields: int) -> bytes:
        """A key of 32 bytes with the VCEK as its root. Raises `Unavailable`."""
        request = pack_derived_key_request(fields)
        return unpack_derived_key_response(self._exchange(SNP_GET_DERIVED_KEY, request, DERIVED_KEY_RESPONSE_SIZE))

    def _exchange(self, number: int, request: bytes, response_size: int) -> bytes:
        theirs = ctypes.create_string_buffer(request, len(request))
        response = ctypes.create_string_buffer(response_size)
        argument = bytearray(GuestRequest(MESSAGE_VERSION, ctypes.addressof(theirs), ctypes.addressof(response)).pack())
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._ioctl(descriptor, number, argument)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unavailable(error, GuestRequest.unpack(bytes(argument)).exit_info) from error
        return response.raw


def _unavailable(error: OSError, exit_info: int) -> Unavailable:
    if error.errno == errno.ENOTTY:
        hint = "the key for messages to the firmware was wiped: the VM must be started again"
    else:
        hint = "is this an SEV-SNP guest?"
    codes = f"firmware error {exit_info & 0xFFFFFFFF:#x}, hypervisor error {exit_info >> 32:#x}"
    return Unavailable(f"the secure processor does not answer: {error.strerror} ({codes})", hint=hint)
