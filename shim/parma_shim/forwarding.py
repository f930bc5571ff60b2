# SPDX-License-Identifier: Apache-2.0
"""Connections to ports of a pod's loopback on the host, carried into the guest (``kubectl port-forward``).

containerd connects to localhost in the pod's network namespace, where nothing of the pod runs. What it connects to is
caught there (`parma_shim.helpers.port_catcher`), and the guest is asked for the port by the address that was meant. Its
policy decides; a connection that it refuses is reset. Loaded by the shim of a pod only.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from parma_shim.guest import clean_text
from parma_shim.stdio.waiting import Stopper
from parma_shim.task.ports import StreamConnection
from parma_shim.vm.network import Ports
from parma_wire.errors import ParmaError
from parma_wire.guest_pb2 import ForwardFrame, ForwardOpen
from parma_wire.limits import MAX_FORWARDED
from parma_wire.relay import Relay, reset_when_closed
from ttrpc import TtrpcError

_STREAMS: Final = "parma.guest.v1.Streams"
_MAX_TEXT: Final = 1024
_CLOSING_SECONDS: Final = 10.0
_NO_DESCRIPTORS_PAUSE: Final = 0.5
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""Whoever has closed his end for good has half-closed it at first, and is not there any more a minute later."""


class Forwarder:
    """Of one pod, from its construction to `close`."""

    def __init__(self, ports: Ports, connect: Callable[[], StreamConnection], log: Callable[[str], None]) -> None:
        """Takes the descriptors over, also when it fails. ``connect`` opens a connection to the guest, which ends with
        the VM. Raises OSError when no descriptors are left."""
        self._listener: Final = socket.socket(fileno=ports.listener)
        self._link: Final = ports.link
        self._connect: Final = connect
        self._log: Final = log
        try:
            self._stopper: Final = Stopper()
        except OSError:
            self._close()
            raise
        self._free: Final = threading.BoundedSemaphore(MAX_FORWARDED)
        threading.Thread(target=self._accept, name="ports", daemon=True).start()

    def close(self) -> None:
        """No connection is taken any more. Idempotent; from any thread."""
        self._stopper.stop()

    def _accept(self) -> None:
        try:
            while self._stopper.wait(self._listener.fileno(), select.POLLIN):
                try:
                    connection, _ = self._listener.accept()
                except ConnectionError:
                    continue
                except OSError:  # no descriptors, for now
                    self._stopper.wait(self._listener.fileno(), 0, _NO_DESCRIPTORS_PAUSE)
                    continue
                if not self._begin(connection):
                    reset_when_closed(connection)
                    connection.close()
        finally:
            self._close()
            self._stopper.close()

    def _close(self) -> None:
        os.close(self._link)  # first: then nobody is led to a listener that has gone
        self._listener.close()

    def _begin(self, connection: socket.socket) -> bool:
        """False when there are too many already."""
        if not self._free.acquire(blocking=False):
            return False
        try:
            threading.Thread(target=self._serve, args=(connection,), name="port", daemon=True).start()
        except RuntimeError:  # no threads, for now
            self._free.release()
            return False
        return True

    def _serve(self, connection: socket.socket) -> None:
        port = connection.getsockname()[1]
        try:
            # What breaks is reset, and whoever is at the other end knows from that.
            with connection, suppress(ParmaError, OSError):
                try:
                    self._forward(connection, port)
                except BaseException:
                    reset_when_closed(connection)
                    raise
        except TtrpcError as error:
            self._log(f"a connection to port {port} of the pod ended: {clean_text(error.message, _MAX_TEXT)}")
        finally:
            self._free.release()

    def _forward(self, connection: socket.socket, port: int) -> None:
        for option in _KEEP_ALIVE:
            connection.setsockopt(*option)
        client = self._connect()
        try:
            stream = client.stream(_STREAMS, "Forward", ForwardFrame)
            try:
                stream.send(ForwardFrame(open=ForwardOpen(port=port)))
                relay = Relay(connection, stream)
                relay.run()
                relay.wait_closed(_CLOSING_SECONDS)
            finally:
                stream.close()
        finally:
            client.close()
