# SPDX-License-Identifier: Apache-2.0
"""A service, a server on one end of a socket pair, and a peer that speaks bare frames."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value, StringValue

import ttrpc
from tests.ttrpc import echo_pb2
from ttrpc import envelope, frames

ECHO = echo_pb2.DESCRIPTOR.services_by_name["Echo"]
NAME = ECHO.full_name
SECONDS = 60.0
"""How long a test waits for something that should happen at once."""


class TeapotError(Exception):
    """An error of a service's own hierarchy."""

    code = 9


class Echo:
    """The service of echo.proto."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.blocked = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.stream_errors: list[ttrpc.TtrpcError] = []
        self.stream_ended = threading.Event()

    def Say(self, request: StringValue, _context: ttrpc.Context) -> StringValue:  # noqa: N802
        return StringValue(value=request.value)

    def Fail(self, request: Int32Value, _context: ttrpc.Context) -> Empty:  # noqa: N802
        if request.value == 9:
            raise TeapotError("as asked")
        if request.value == 2:
            raise ZeroDivisionError("secret")
        if request.value == -errno.EMFILE:
            raise OSError(errno.EMFILE, "secret")
        if request.value == 1:
            raise SystemExit("secret")
        raise ttrpc.TtrpcError(request.value, "as asked")

    def Metadata(self, request: StringValue, context: ttrpc.Context) -> StringValue:  # noqa: N802
        return StringValue(value=context.metadata.get(request.value, ""))

    def Deadline(self, _request: Empty, context: ttrpc.Context) -> Int64Value:  # noqa: N802
        left = context.remaining()
        return Int64Value(value=-1 if left is None else int(left * 1000))

    def Big(self, request: Int32Value, _context: ttrpc.Context) -> StringValue:  # noqa: N802
        return StringValue(value="x" * request.value)

    def Block(self, request: StringValue, context: ttrpc.Context) -> StringValue:  # noqa: N802
        context.on_cancel(self.cancelled.set)
        self.blocked.release()
        if not self.gate.wait(SECONDS):
            raise ttrpc.TtrpcError(ttrpc.Status.INTERNAL, "the test did not open the gate")
        return StringValue(value=request.value)

    def Collect(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> StringValue:  # noqa: N802
        texts = []
        while (message := stream.recv()) is not None:
            texts.append(message.value)
        return StringValue(value="".join(texts))

    def Count(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> None:  # noqa: N802
        for number in range(stream.recv().value):
            stream.send(StringValue(value=str(number)))

    def Chat(self, stream: ttrpc.ServerStream, context: ttrpc.Context) -> None:  # noqa: N802
        context.on_cancel(self.cancelled.set)
        try:
            while (message := stream.recv()) is not None:
                if message.value == "block":
                    self.blocked.release()
                    self.gate.wait(SECONDS)
                elif message.value == "fail":
                    raise TeapotError("as asked")
                elif message.value == "leave":
                    return
                else:
                    stream.send(StringValue(value=message.value))
        except ttrpc.TtrpcError as error:
            self.stream_errors.append(error)
            raise
        finally:
            self.stream_ended.set()


class Peer:
    """The far end of a connection, speaking bare frames."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._decoder = frames.Decoder()
        self._received: list[frames.Frame] = []

    def send(self, stream_id: int, type_: int, flags: int = 0, payload: bytes = b"") -> None:
        self.sock.sendall(frames.HEADER.pack(len(payload), stream_id, type_, flags) + payload)

    def request(self, stream_id: int, method: str, message: Any = None, *, flags: int = 0, service: str = NAME) -> None:
        payload = b"" if message is None else message.SerializeToString()
        body = envelope.encode_request(envelope.Request(service, method, payload))
        self.send(stream_id, frames.REQUEST, flags, body)

    def receive(self) -> frames.Frame | None:
        """The next frame, or None at the end of the connection."""
        while not self._received:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._received += self._decoder.feed(data)
        return self._received.pop(0)

    def response(self) -> tuple[int, envelope.Response]:
        """The next frame, which must be a response: its stream id and content."""
        frame = self.receive()
        assert frame is not None
        assert frame.type == frames.RESPONSE
        assert frame.payload is not None
        return frame.stream_id, envelope.decode_response(frame.payload)

    def refusal(self) -> tuple[int, int]:
        """The next frame, which must be a response: its stream id and status code."""
        stream_id, response = self.response()
        return stream_id, response.code


class Running:
    """A server and what a test needs of it."""

    def __init__(self, server: ttrpc.Server, echo: Echo, log: list[str]) -> None:
        self.server = server
        self.echo = echo
        self.log = log
        self._threads: list[threading.Thread] = []
        self._far_ends: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """A new connection's far end; it never blocks a test for good."""
        near, far = socket.socketpair()
        far.settimeout(SECONDS)
        thread = threading.Thread(target=self.server.serve_connection, args=(near,), daemon=True)
        thread.start()
        self._threads.append(thread)
        self._far_ends.append(far)
        return far

    def close(self) -> None:
        """Ends everything and waits for that."""
        self.echo.gate.set()
        self.server.close()
        self.join()
        for far in self._far_ends:
            far.close()

    def join(self) -> None:
        """Waits until every connection has ended."""
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server with the Echo service; at the end nothing of it may be left."""
    log: list[str] = []
    server = ttrpc.Server(log=log.append, **options)
    echo = Echo()
    server.register(ECHO, echo)
    run = Running(server, echo, log)
    try:
        yield run
    finally:
        run.close()
    wait_until(lambda: server.held == 0)
    assert server.connections == 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread does soon, without a sleep of fixed length."""
    pause = threading.Event()
    for _ in range(int(SECONDS * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")
