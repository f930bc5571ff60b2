# SPDX-License-Identifier: Apache-2.0
"""The host's end of the emulated secure processor: the guest asks for a report, a helper process signs it.

Only with tee = "emulated". The guest supplies REPORT_DATA and nothing else; measurement, HOST_DATA and guest policy
were fixed when the VM was started, as they are on real hardware. It proves nothing to anybody: the host signs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from parma_shim.helpers.call import Helper
from parma_shim.vm.command import VmSpec
from parma_shim.vm.machine import VirtualMachine
from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError
from parma_wire.limits import EMULATED_SECURE_PROCESSOR_PORT, MAX_SEND
from ttrpc import Context, Server

REPORT_DATA_SIZE: Final = 64
MAX_VMPL: Final = 3
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmulatedSecureProcessor"]
_REDIAL_SECONDS: Final = 1.0

_MODULE: Final = "parma_snp.emulated"


class Signer(Protocol):
    """Makes reports for one VM."""

    def prepare(self, deadline: float) -> None:
        """Have everything ready that takes longer than a guest waits for a report."""

    def sign(self, report_data: bytes, vmpl: int) -> bytes:
        """A report (1184 bytes) over 64 bytes, which says this VMPL."""

    def derive_key(self, fields: int) -> bytes:
        """A derived key (32 bytes); ``fields`` says what of the VM is mixed into it."""


class EmulatedSigner:
    """The emulated processor kept in ``directory``, used by helper processes: its library is too large to stay."""

    def __init__(self, python: Path, directory: Path, spec: VmSpec, *, timeout: float) -> None:
        self._python: Final = python
        self._directory: Final = directory
        self._timeout: Final = timeout
        measurement = spec.image.measurement(spec.tee, spec.vcpus).hex()
        self._arguments: Final = ["--directory", str(directory), "--measurement", measurement]
        self._identity: Final = ["--report-id", os.urandom(32).hex(), "--host-data", spec.host_data.hex()]

    def prepare(self, deadline: float) -> None:
        """Make the keys on this host's first use; that takes seconds."""
        if not (self._directory / "authority.pem").exists():
            Helper(self._python, _MODULE, ["create", "--directory", str(self._directory)]).exchange_bytes(
                b"", deadline=deadline
            )

    def sign(self, report_data: bytes, vmpl: int) -> bytes:
        """One report, one process."""
        return self._run(["report", *self._arguments, *self._identity, "--vmpl", str(vmpl)], report_data)

    def derive_key(self, fields: int) -> bytes:
        """One key, one process."""
        return self._run(["key", *self._arguments, "--fields", str(fields)], b"")

    def _run(self, arguments: list[str], data: bytes) -> bytes:
        helper = Helper(self._python, _MODULE, arguments)
        return helper.exchange_bytes(data, deadline=time.monotonic() + self._timeout)


class SecureProcessor:
    """Serves one VM for as long as it runs, on a thread of its own."""

    def __init__(
        self, machine: VirtualMachine, signer: Signer, *, boot_deadline: float, log: Callable[[str], None]
    ) -> None:
        self._machine: Final = machine
        self._signer: Final = signer
        self._boot_deadline: Final = boot_deadline
        self._log: Final = log
        self._one_at_a_time: Final = threading.Lock()
        self._connected: Final = threading.Event()
        threading.Thread(target=self._run, name="secure-processor", daemon=True).start()

    def wait_connected(self, deadline: float) -> None:
        """Wait until the guest can ask for reports. Raises DeadlineExceeded."""
        if not self._connected.wait(max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("the guest does not listen for its emulated secure processor")

    def GetReport(self, request: pb.GetReportRequest, _context: Context) -> pb.GetReportResponse:  # noqa: N802
        """A report, as the guest's own processor would give it."""
        if len(request.report_data) != REPORT_DATA_SIZE or request.vmpl > MAX_VMPL:
            expected = f"{REPORT_DATA_SIZE} bytes and VMPL 0 to {MAX_VMPL}"
            raise Malformed("the request for a report makes no sense", expected=expected)
        report = self._answer(lambda: self._signer.sign(request.report_data, request.vmpl))
        return pb.GetReportResponse(report=report)

    def GetDerivedKey(  # noqa: N802
        self, request: pb.GetDerivedKeyRequest, _context: Context
    ) -> pb.GetDerivedKeyResponse:
        """A key that a guest with the same launch values gets again."""
        key = self._answer(lambda: self._signer.derive_key(request.guest_field_select))
        return pb.GetDerivedKeyResponse(key=key)

    def _answer(self, make: Callable[[], bytes]) -> bytes:
        """An answer costs a process, so there is never more than one."""
        with self._one_at_a_time:
            try:
                return make()
            except ParmaError as error:
                # The guest only learns that there was no answer; the reason is the host's to know.
                self._log(f"the emulated secure processor failed: {error}")
                raise

    def _run(self) -> None:
        server = Server(write_chunk=MAX_SEND, max_in_flight=4, log=self._log)
        server.register(_SERVICE, self)
        deadline = self._boot_deadline
        try:
            self._signer.prepare(deadline)
            while self._machine.alive:
                connection = self._machine.connect(EMULATED_SECURE_PROCESSOR_PORT, deadline=deadline)
                self._connected.set()
                server.serve_connection(connection)
                self._machine.wait(_REDIAL_SECONDS)
                deadline = time.monotonic() + _REDIAL_SECONDS
        except ParmaError as error:
            if self._machine.alive:
                self._log(f"the emulated secure processor does not serve the guest: {error}")
        finally:
            server.close()
