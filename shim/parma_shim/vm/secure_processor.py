# SPDX-License-Identifier: Apache-2.0
"""The host's end of the emulated secure processor: the guest asks for a report, a helper process signs it.

Only with tee = "emulated". The guest supplies REPORT_DATA and nothing else; measurement, HOST_DATA and guest policy
were fixed when the VM was started, as they are on real hardware. It proves nothing to anybody: the host signs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from parma_shim.vm.machine import VirtualMachine
from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError
from parma_wire.limits import EMULATED_SECURE_PROCESSOR_PORT, MAX_SEND
from ttrpc import Context, Server

REPORT_DATA_SIZE: Final = 64
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmulatedSecureProcessor"]
_REDIAL_SECONDS: Final = 1.0

Sign = Callable[[bytes], bytes]


class SecureProcessor:
    """Serves one VM for as long as it runs, on a thread of its own."""

    def __init__(
        self, machine: VirtualMachine, sign: Sign, *, boot_deadline: float, log: Callable[[str], None]
    ) -> None:
        self._machine: Final = machine
        self._sign: Final = sign
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
        """The service's one method. A signature costs a process, so there is never more than one."""
        if len(request.report_data) != REPORT_DATA_SIZE:
            raise Malformed("report_data has the wrong size", expected=f"{REPORT_DATA_SIZE} bytes")
        with self._one_at_a_time:
            return pb.GetReportResponse(report=self._sign(request.report_data))

    def _run(self) -> None:
        server = Server(write_chunk=MAX_SEND, max_in_flight=4, log=self._log)
        server.register(_SERVICE, self)
        deadline = self._boot_deadline
        try:
            while self._machine.alive:
                connection = self._machine.connect(EMULATED_SECURE_PROCESSOR_PORT, deadline=deadline)
                self._connected.set()
                server.serve_connection(connection)
                self._machine.wait(_REDIAL_SECONDS)
                deadline = time.monotonic() + _REDIAL_SECONDS
        except ParmaError as error:
            if self._machine.alive:
                self._log(f"the guest does not ask its emulated secure processor: {error}")
        finally:
            server.close()
