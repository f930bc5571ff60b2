# SPDX-License-Identifier: Apache-2.0
"""The process that faces one container: serves its device and its endpoints, and asks the enforcer.

Started with the channel as descriptor 0 and the device (or /dev/null) as 1. It has read nothing of the container
when it gives up its rights (`parma_guest.attest.confine`). It ends when the enforcer closes the channel, and whenever
something is not as it should be: then the device answers ENODEV and nobody listens any more.

One thread, one question at a time: a container that floods its agent waits for itself. Memory, number of connections
and the time that each may take are bounded.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from parma_guest import paths
from parma_guest.attest import certs, channel, cuse, endpoints, fuse, http
from parma_guest.attest.channel import KeyQuestion, ReportQuestion, Setup
from parma_guest.attest.confine import confine
from parma_guest.attest.endorsements import Endorsements, host_amd_cert
from parma_wire.errors import Malformed, Unavailable

CHANNEL: Final = 0
DEVICE: Final = 1

MAX_CONNECTIONS: Final = 16
REQUEST_SECONDS: Final = 10.0
"""From the connection to the last byte of the answer."""
LINGER_SECONDS: Final = 1.0
"""For the client to close; closing first could destroy an answer that it has not read yet."""

_ENFORCER_SECONDS: Final = 60.0
_PIECE: Final = 16 * 1024

Clock = Callable[[], float]


class Enforcer:
    """The other end of the channel, as `parma_guest.attest.endpoints.Backend`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(_ENFORCER_SECONDS)

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """1184 bytes. Raises `Unavailable`."""
        return self._ask(ReportQuestion(report_data, vmpl).pack())

    def key(self, context: bytes) -> bytes:
        """32 bytes. Raises `Unavailable`."""
        return self._ask(KeyQuestion(context).pack())

    def _ask(self, question: bytes) -> bytes:
        """Any error of the connection ends the agent: the next answer could be the one to this question."""
        self._connection.sendall(question)
        answer = self._connection.recv(channel.MAX_ANSWER)
        if not answer:
            raise EOFError
        result, reason = channel.parse_answer(answer)
        if reason:
            raise Unavailable(reason)
        return result


class Connection:
    """One client. Collects its request, then sends the answer, then waits for its end."""

    def __init__(self, sock: socket.socket, port: int, now: float) -> None:
        self.socket = sock
        self.port = port
        self.deadline = now + REQUEST_SECONDS
        self.reader: http.Reader | None = http.Reader()
        self.output = b""

    def answer(self, response: http.Response) -> None:
        """What is still to be read means nothing any more."""
        self.reader = None
        self.output += response.pack()


class Agent:
    """The loop. ``device`` is a descriptor or None."""

    def __init__(
        self,
        setup: Setup,
        listeners: list[socket.socket],
        device: int | None,
        enforcer: Enforcer,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._allowed = frozenset(setup.paths)
        self._endorsements = Endorsements(setup.host_amd_cert, setup.reference_info)
        self._certs = certs.table(host_amd_cert(self._endorsements))
        self._listeners = dict(zip(listeners, setup.ports, strict=True))
        self._device = device
        self._enforcer = enforcer
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        if device is not None:
            os.set_blocking(device, False)
            self._selector.register(device, selectors.EVENT_READ, self._serve_device)
        for listener in listeners:
            listener.setblocking(False)
        self._listening = False

    def run(self, control: socket.socket) -> None:
        """Until ``control`` (the channel) has something to say, which can only be its end."""
        self._selector.register(control, selectors.EVENT_READ, None)
        while True:
            self._listen(len(self._connections) < MAX_CONNECTIONS)
            for key, _events in self._selector.select(self._timeout()):
                if key.data is None:
                    return
                key.data()
            self._expire()

    def _timeout(self) -> float | None:
        if not self._connections:
            return None
        return max(0.0, min(connection.deadline for connection in self._connections) - self._clock())

    def _expire(self) -> None:
        now = self._clock()
        for connection in [item for item in self._connections if item.deadline <= now]:
            self._drop(connection)

    # The device

    def _serve_device(self) -> None:
        assert self._device is not None  # noqa: S101  # only then it is registered
        try:
            message = os.read(self._device, fuse.MAX_REQUEST)
        except BlockingIOError:
            return
        reply = cuse.answer(message, self._enforcer.report, self._certs)
        try:
            os.write(self._device, reply)
        except FileNotFoundError:
            return  # the caller was killed meanwhile

    # The endpoints

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listening:
            return
        for listener in self._listeners:
            if wanted:
                self._selector.register(listener, selectors.EVENT_READ, lambda sock=listener: self._accept(sock))
            else:
                self._selector.unregister(listener)
        self._listening = wanted

    def _accept(self, listener: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            return
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        connection = Connection(sock, self._listeners[listener], self._clock())
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._advance(connection))

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._connections.discard(connection)

    def _advance(self, connection: Connection) -> None:
        try:
            if connection.output:
                self._send(connection)
            else:
                self._receive(connection)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            if connection in self._connections:
                self._drop(connection)

    def _receive(self, connection: Connection) -> None:
        data = connection.socket.recv(_PIECE)
        if not data:
            self._drop(connection)
            return
        if connection.reader is None:  # answered: what else it says is not heard
            return
        try:
            request, connection.output = connection.reader.feed(data)
        except http.Refused as refused:
            connection.answer(endpoints.error(refused.status, refused.text))
        else:
            if request is not None:
                connection.answer(
                    endpoints.respond(connection.port, request, self._allowed, self._enforcer, self._endorsements)
                )
        if connection.output:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.output)
        except BlockingIOError:
            sent = 0
        connection.output = connection.output[sent:]
        wanted = selectors.EVENT_WRITE if connection.output else selectors.EVENT_READ
        self._selector.modify(connection.socket, wanted, lambda: self._advance(connection))
        if not connection.output and connection.reader is None:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.deadline = min(connection.deadline, self._clock() + LINGER_SECONDS)


def receive_setup(control: socket.socket) -> tuple[Setup, list[socket.socket]]:
    """The enforcer's first message, with the listening sockets."""
    message, descriptors, _, _ = socket.recv_fds(control, channel.MAX_SETUP, 8)
    if not message:
        raise EOFError
    return Setup.unpack(message), [socket.socket(fileno=descriptor) for descriptor in descriptors]


def main() -> None:
    """The whole process."""
    with socket.socket(fileno=CHANNEL) as control:
        try:
            setup, listeners = receive_setup(control)
            if "/aa/evidence" in setup.paths:
                import parma_guest.attest.evidence  # noqa: F401  # later there are no files any more
            agent = Agent(setup, listeners, DEVICE if setup.device else None, Enforcer(control))
            confine(paths.NOTHING)
            agent.run(control)
        except (EOFError, OSError, Malformed):
            return
