# SPDX-License-Identifier: Apache-2.0
"""The server: services, listeners and the limits that all its connections share."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from ttrpc import frames, service, workers
from ttrpc.budget import Budget
from ttrpc.channel import Channel
from ttrpc.errors import OUT_OF_RESOURCES, Status, TtrpcError
from ttrpc.serving import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import ServiceDescriptor

    from ttrpc.service import Interceptor

_RETRY_MILLISECONDS: Final = 200


def same_user(sock: socket.socket) -> bool:
    """An ``accept`` rule for unix sockets: the peer runs under this process's effective user id."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid == os.geteuid()


def anyone(_sock: socket.socket) -> bool:
    """The default ``accept`` rule."""
    return True


def _silent(_text: str) -> None:
    pass


class Server:
    """Serves any number of services to any number of connections.

    Each connection has a thread that reads; each request runs in a thread of a pool. A service is an object with a
    method for each RPC, named as in the ``.proto`` file:

    * unary: ``def Get(self, request, context) -> response``;
    * streaming in any direction: ``def Watch(self, stream, context)``, see :class:`ttrpc.serving.ServerStream`. The
      request of a server-streaming method is the first message received, the response of a client-streaming method
      is what the function returns.

    A handler fails by raising :class:`TtrpcError`, or any exception with an ``int`` attribute ``code`` that is a
    :class:`Status`. The client sees code and text. Other exceptions are logged; the client sees UNKNOWN.

    Args:
        accept: asked for each connection that :meth:`serve` accepts; must not block.
        max_connections: further ones are closed at once.
        max_in_flight: requests in progress on one connection.
        max_threads: requests in progress altogether.
        max_message: longest frame accepted, in bytes; at most the protocol's 4 MiB.
        max_held: bytes of requests in progress and of stream messages not yet taken, altogether; one connection may
            use a quarter of it, but always one longest frame.
        write_chunk: most bytes handed to one ``send`` of a socket.
        stack_size: of threads that run handlers, in bytes; see :data:`ttrpc.workers.STACK_SIZE`.
        log: receives a text about each failure that clients are not told about.
        interceptor: called for each unary request in place of its handler, with the method's full name
            (``package.Service/Method``), the request, its context and a function that calls the handler; what it
            returns or raises is the answer.
    """

    def __init__(
        self,
        *,
        accept: Callable[[socket.socket], bool] = anyone,
        max_connections: int = 512,
        max_in_flight: int = 1024,
        max_threads: int = 2048,
        max_message: int = frames.MESSAGE_MAX,
        max_held: int = 64 << 20,
        write_chunk: int | None = None,
        stack_size: int = workers.STACK_SIZE,
        log: Callable[[str], None] = _silent,
        interceptor: Interceptor = service.call_handler,
    ) -> None:
        self._accept = accept
        self._max_connections = max_connections
        self._max_in_flight = max_in_flight
        self._max_message = min(max_message, frames.MESSAGE_MAX)
        self._max_held_each = max(max_held // 4, self._max_message)
        self._held = Budget(max_held)
        self._write_chunk = write_chunk
        self._workers = workers.Workers(max_threads, stack_size)
        self._log_callback = log
        self._interceptor = interceptor
        self._services: dict[str, dict[str, service.Method]] = {}
        self._lock = threading.Lock()
        self._connections: set[ServerConnection] = set()
        self._closing = False
        self._wake: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self._wake)

    def register(self, descriptor: ServiceDescriptor, implementation: object) -> None:
        """Serves ``implementation`` under the service's own name. What it does not implement answers UNIMPLEMENTED.

        Raises:
            ValueError: the name is taken.
            TypeError: ``implementation`` has no method of the service.
        """
        self.register_alias(descriptor.full_name, descriptor, implementation)

    def register_alias(self, full_name: str, descriptor: ServiceDescriptor, implementation: object) -> None:
        """Like :meth:`register`, under another name; for packages whose definitions differ in the name only."""
        if full_name in self._services:
            raise ValueError(f"service {full_name} is registered already")
        self._services[full_name] = service.methods_of(descriptor, implementation)

    def serve(self, listener: socket.socket) -> None:
        """Accepts connections until :meth:`close`. The listener stays the caller's, who closes it afterwards.

        Raises:
            OSError: the listener is no listening socket, or broke.
        """
        listener.setblocking(False)
        poll = select.poll()
        poll.register(listener.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._closing:
            poll.poll()
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                self._pause(f"cannot accept a connection: {error}")
                continue
            self._begin(sock)

    def serve_connection(self, sock: socket.socket) -> None:
        """Serves one connected socket, which it closes, until the peer is gone or :meth:`close` is called.

        Raises:
            TtrpcError: the server has ``max_connections``; the socket is closed.
        """
        try:
            connection = self._enter(sock)
        except TtrpcError:
            if not self._closing:
                raise
            return  # closed before it was entered: no other end than that of one closed just after
        self._run(connection)

    def close(self) -> None:
        """Stops accepting and ends all connections. Does not wait for handlers. Idempotent."""
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        os.eventfd_write(self._wake, 1)
        for connection in connections:
            connection.shutdown()

    @property
    def connections(self) -> int:
        """Connections being served."""
        return len(self._connections)

    @property
    def threads(self) -> int:
        """Threads of the pool, busy or idle."""
        return self._workers.threads

    @property
    def held(self) -> int:
        """Bytes counted against ``max_held``."""
        return self._held.used

    def _begin(self, sock: socket.socket) -> None:
        """Starts serving an accepted socket, or closes it."""
        connection = None
        try:
            if self._accept(sock):
                connection = self._enter(sock)
                workers.start_thread(partial(self._run, connection), "ttrpc-reader", workers.READER_STACK_SIZE)
                return
            reason = "the peer may not connect"
        except Exception as error:  # noqa: BLE001 - one connection's trouble must not stop the others
            reason = str(error)
        self._log(f"ttrpc: connection refused: {reason}")
        if connection is not None:
            with self._lock:
                self._connections.discard(connection)
        sock.close()

    def _enter(self, sock: socket.socket) -> ServerConnection:
        """Counts a new connection."""
        with self._lock:
            if self._closing or len(self._connections) >= self._max_connections:
                sock.close()
                raise TtrpcError(Status.UNAVAILABLE, "closing" if self._closing else "too many connections")
            connection = ServerConnection(
                Channel(sock, self._write_chunk),
                find=self._find,
                workers=self._workers,
                budget=Budget(self._max_held_each, self._held),
                max_in_flight=self._max_in_flight,
                max_message=self._max_message,
                log=self._log,
                interceptor=self._interceptor,
            )
            self._connections.add(connection)
            return connection

    def _run(self, connection: ServerConnection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _find(self, service_name: str, method_name: str) -> service.Method:
        methods = self._services.get(service_name)
        if methods is None:
            raise TtrpcError(Status.UNIMPLEMENTED, f"service {service_name[:200]}")
        method = methods.get(method_name)
        if method is None:
            raise TtrpcError(Status.UNIMPLEMENTED, f"method {method_name[:200]}")
        return method

    def _pause(self, why: str) -> None:
        self._log(f"ttrpc: {why}")
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(_RETRY_MILLISECONDS)

    def _log(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that fails must not take requests along
            self._log_callback(text)
