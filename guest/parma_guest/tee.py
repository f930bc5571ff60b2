# SPDX-License-Identifier: Apache-2.0
"""Where attestation reports come from. Which provider is used follows from the measured kernel command line alone."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from google.protobuf.message import Message

from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable, Unverified
from parma_wire.limits import EMULATED_SECURE_PROCESSOR_PORT, HOST_CID, MAX_SEND

if TYPE_CHECKING:
    from parma_guest.sevguest import SevGuest
    from ttrpc import Client

REPORT_BYTES: Final = 1184
REPORT_DATA_BYTES: Final = 64
KEY_BYTES: Final = 32
M = TypeVar("M", bound=Message)
CONFIGFS_TSM: Final = Path("/sys/kernel/config/tsm/report")
SNP_MARKS: Final = (
    # Each exists only in a guest with a real secure processor.
    Path("/sys/devices/system/cpu/sev/vmpl"),
    Path("/sys/devices/platform/sev-guest"),
    Path("/dev/sev-guest"),
)
_NO_CONFIGFS_TSM: Final = frozenset((errno.ENOENT, errno.ENXIO))
"""What mkdir says where there is no configfs-tsm, or nobody who serves reports there."""

_SERVICE: Final = "parma.guest.v1.EmulatedSecureProcessor"
_CALL_TIMEOUT: Final = 10.0
_DIAL_TIMEOUT: Final = 15.0


class TeeProvider(Protocol):
    """A source of reports."""

    @property
    def name(self) -> str:
        """As on the command line: snp, emulated or none."""

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        """A report over these 64 bytes. Raises `Unavailable` or `Unverified`; never falls back to anything.

        ``vmpl`` (0 to 3) is what the report shall say: a guest may ask for its own level and less privileged ones.
        """

    def host_data(self) -> bytes | None:
        """HOST_DATA of a fresh report; None where there is no TEE."""

    def derived_key(self) -> bytes:
        """The 32 bytes that only this image with this guest policy gets from this processor; not bound to HOST_DATA.

        Raises `Unavailable`. It never leaves the enforcer: see `parma_guest.attest.keys`.
        """


class NoTee:
    """``tee = none``: no report, and any policy is accepted."""

    name = "none"

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        """Always empty."""
        del report_data, vmpl
        return b""

    def host_data(self) -> bytes | None:
        """Always None."""
        return None

    def derived_key(self) -> bytes:
        """Never."""
        raise Unavailable("there is no secure processor to derive keys")


class _Reporting:
    """What the two kinds of real reports have in common."""

    name = ""

    def _fetch(self, report_data: bytes, vmpl: int) -> bytes:
        raise NotImplementedError

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        """See `TeeProvider`."""
        return self._checked(report_data, vmpl)[0]

    def host_data(self) -> bytes | None:
        """See `TeeProvider`. The report is asked for with fresh random report_data, so it cannot be an old one."""
        return self._checked(os.urandom(REPORT_DATA_BYTES), 0)[1]

    def _checked(self, report_data: bytes, vmpl: int) -> tuple[bytes, bytes]:
        """Report and its HOST_DATA."""
        from parma_snp import report as snp_report  # not needed to boot

        if len(report_data) != REPORT_DATA_BYTES:
            raise Malformed("report_data has a bad size", expected=f"{REPORT_DATA_BYTES} bytes")
        data = self._fetch(report_data, vmpl)
        if len(data) != REPORT_BYTES:
            raise Unverified("the attestation report has a bad size", expected=f"{REPORT_BYTES} bytes")
        try:
            parsed = snp_report.parse(data)
        except Exception as error:  # whatever is wrong with it, it is no report
            raise Unverified("the attestation report is malformed") from error
        if bytes(parsed.report_data) != report_data or parsed.vmpl != vmpl:
            raise Unverified("the attestation report is not the one that was asked for")
        return data, bytes(parsed.host_data)


class SnpTee(_Reporting):
    """``tee = snp``: the secure processor, through configfs-tsm, or through /dev/sev-guest where that is not served."""

    name = "snp"

    def __init__(self, directory: Path = CONFIGFS_TSM, device: SevGuest | None = None) -> None:
        self._directory = directory
        self._device = device
        self._lock = threading.Lock()

    def derived_key(self) -> bytes:
        """See `TeeProvider`. configfs-tsm has no such request."""
        from parma_guest.sevguest import FIELD_MEASUREMENT, FIELD_POLICY

        with self._lock:
            return self._sev_guest().derived_key(FIELD_POLICY | FIELD_MEASUREMENT)

    def _fetch(self, report_data: bytes, vmpl: int) -> bytes:
        entry = self._directory / "parma"
        with self._lock:
            try:
                entry.mkdir()
            except OSError as error:
                if error.errno in _NO_CONFIGFS_TSM:
                    return self._sev_guest().report(report_data, vmpl)
                raise Unavailable("the secure processor gives no report") from error
            try:
                try:
                    return self._exchange(entry, report_data, vmpl)
                finally:
                    entry.rmdir()
            except OSError as error:
                raise Unavailable("the secure processor gives no report", hint="is this an SEV-SNP guest?") from error

    def _sev_guest(self) -> SevGuest:
        from parma_guest.sevguest import SevGuest

        return self._device or SevGuest()

    @staticmethod
    def _exchange(entry: Path, report_data: bytes, vmpl: int) -> bytes:
        if (entry / "provider").read_text().strip() != "sev_guest":
            raise Unverified("reports come from something that is not SEV-SNP")
        before = int((entry / "generation").read_text())
        (entry / "privlevel").write_text(str(vmpl))
        (entry / "inblob").write_bytes(report_data)
        data = (entry / "outblob").read_bytes()
        if int((entry / "generation").read_text()) != before + 2:
            raise Unverified("somebody else changed the report request")
        return data


class EmulatedTee(_Reporting):
    """``tee = emulated``: the host signs, over a connection that it dials. Proves nothing, exercises everything."""

    name = "emulated"

    def __init__(self, listener: socket.socket, accept: Callable[[socket.socket], bool]) -> None:
        self._listener = listener
        self._accept = accept
        self._lock = threading.Lock()
        self._client: Client | None = None

    def derived_key(self) -> bytes:
        """See `TeeProvider`. The host can compute it as well."""
        from parma_guest.sevguest import FIELD_MEASUREMENT, FIELD_POLICY

        request = pb.GetDerivedKeyRequest(guest_field_select=FIELD_POLICY | FIELD_MEASUREMENT)
        key = bytes(self._call("GetDerivedKey", request, pb.GetDerivedKeyResponse).key)
        if len(key) != KEY_BYTES:
            raise Unverified("the derived key has a bad size", expected=f"{KEY_BYTES} bytes")
        return key

    def _fetch(self, report_data: bytes, vmpl: int) -> bytes:
        request = pb.GetReportRequest(report_data=report_data, vmpl=vmpl)
        return bytes(self._call("GetReport", request, pb.GetReportResponse).report)

    def _call(self, method: str, request: Message, response: type[M]) -> M:
        from ttrpc import Client, TtrpcError

        with self._lock:
            if self._client is None or self._client.closed:
                self._client = Client(self._wait_for_host(), write_chunk=MAX_SEND)
            try:
                return self._client.call(_SERVICE, method, request, response, timeout=_CALL_TIMEOUT)
            except TtrpcError as error:
                self._client.close()
                self._client = None
                raise Unavailable("the emulated secure processor does not answer") from error

    def _wait_for_host(self) -> socket.socket:
        deadline = time.monotonic() + _DIAL_TIMEOUT
        while True:
            self._listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = self._listener.accept()
            except TimeoutError as error:
                raise DeadlineExceeded(
                    "the host's emulated secure processor did not call", expected=f"within {_DIAL_TIMEOUT:.0f} s"
                ) from error
            if self._accept(connection):
                connection.settimeout(None)
                return connection
            connection.close()


def provider(
    name: str,
    listen: Callable[[int], socket.socket],
    accept: Callable[[socket.socket], bool],
    *,
    snp_marks: tuple[Path, ...] = SNP_MARKS,
) -> TeeProvider:
    """The provider for a command line. Raises `Unverified` where the machine is not of that kind: boot must end."""
    real = any(path.exists() for path in snp_marks)
    if name == "snp":
        if not real:
            raise Unverified("started for SEV-SNP, but there is no secure processor")
        return SnpTee()
    if real:
        raise Unverified(f"started for tee={name} on a machine with a secure processor")
    if name == "emulated":
        return EmulatedTee(listen(EMULATED_SECURE_PROCESSOR_PORT), accept)
    if name == "none":
        return NoTee()
    raise Malformed("unknown tee", expected="snp, emulated or none")


def from_host(connection: socket.socket) -> bool:
    """True for a vsock connection whose peer is the host."""
    peer = connection.getpeername()
    return connection.family == socket.AF_VSOCK and peer[0] == HOST_CID
