# SPDX-License-Identifier: Apache-2.0
"""A thin synchronous QMP client (QEMU machine protocol, one JSON document per line).

One command is in flight at a time; events that arrive meanwhile are kept in a short queue, the oldest dropped. Only
:meth:`Qmp.wait_event` looks at them.

Lock contract: :attr:`Qmp._lock` is held for the length of one command and its answer, at most until its deadline.
:meth:`Qmp.close` takes no lock, so that it can end a stuck command.
"""

from __future__ import annotations

import collections
import contextlib
import json
import select
import socket
import threading
import time
from typing import Any, Final

from parma_wire.errors import DeadlineExceeded, Malformed, Unavailable

MAX_MESSAGE: Final = 1024 * 1024
"""Largest message accepted from QEMU, in bytes."""

_MAX_EVENTS: Final = 64

Document = dict[str, Any]


class QmpError(Unavailable):
    """QEMU refused a command. ``name`` is its error class, usually "GenericError"."""

    def __init__(self, command: str, name: str, description: str) -> None:
        super().__init__(f"QEMU refused {command}: {description}")
        self.name: Final = name
        self.description: Final = description


class Qmp:
    """The monitor connection of one QEMU. Safe for several threads."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket: Final = connection
        self._lock: Final = threading.Lock()
        self._received = bytearray()
        self._events: collections.deque[Document] = collections.deque(maxlen=_MAX_EVENTS)
        self._serial = 0
        self._closed = False

    def negotiate(self, *, deadline: float) -> Document:
        """Read the greeting, leave negotiation mode; returns QEMU's version object."""
        with self._lock:
            greeting = self._receive(deadline).get("QMP")
            if not isinstance(greeting, dict):
                raise Malformed("QEMU did not greet", expected="a QMP greeting")
        self.execute("qmp_capabilities", deadline=deadline)
        version = greeting.get("version")
        return version if isinstance(version, dict) else {}

    def execute(
        self, command: str, arguments: Document | None = None, *, deadline: float, descriptor: int | None = None
    ) -> Any:
        """Run one command and return its ``return`` value. ``descriptor`` is passed along (for ``add-fd``).

        Raises QmpError when QEMU says no, DeadlineExceeded when it says nothing, Unavailable when it is gone.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded(f"QEMU did not get to {command} in time")
        try:
            self._serial += 1
            serial = self._serial
            request: Document = {"execute": command, "id": serial}
            if arguments is not None:
                request["arguments"] = arguments
            self._send(json.dumps(request, separators=(",", ":")).encode() + b"\n", descriptor, deadline)
            while True:
                answer = self._receive(deadline)
                if "event" in answer:
                    self._keep(answer)
                elif answer.get("id") == serial:
                    return _value(command, answer)
                # Anything else answers an earlier command that was given up on at its deadline.
        finally:
            self._lock.release()

    def wait_event(self, name: str, *, deadline: float, **data: str) -> Document:
        """The first kept or coming event of this name whose data has these members; it is taken off the queue."""
        with self._lock:
            while True:
                for event in self._events:
                    content = event.get("data", {})
                    if event["event"] == name and all(content.get(key) == value for key, value in data.items()):
                        self._events.remove(event)
                        return event
                answer = self._receive(deadline)
                if "event" in answer:
                    self._keep(answer)

    def close(self) -> None:
        """Close the connection; a command in flight fails with Unavailable. Idempotent."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _keep(self, event: Document) -> None:
        if not isinstance(event.get("data", {}), dict):
            raise Malformed("QEMU sent an event that is none", expected="an object as its data")
        self._events.append(event)

    def _send(self, data: bytes, descriptor: int | None, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                if descriptor is None:
                    count = self._socket.send(view)
                else:
                    count = socket.send_fds(self._socket, [view], [descriptor])
                    descriptor = None
                view = view[count:]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise Unavailable("QEMU's monitor is gone") from error

    def _receive(self, deadline: float) -> Document:
        while True:
            end = self._received.find(b"\n")
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                if not line.strip():
                    continue
                return _document(line)
            if len(self._received) > MAX_MESSAGE:
                raise Malformed("QEMU sent too long a message", expected=f"at most {MAX_MESSAGE} bytes")
            self._wait(select.POLLIN, deadline)
            try:
                piece = self._socket.recv(64 * 1024)
            except BlockingIOError:
                continue
            except OSError as error:
                raise Unavailable("QEMU's monitor is gone") from error
            if not piece:
                raise Unavailable("QEMU's monitor is gone")
            self._received += piece

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        try:
            poll.register(self._socket, event)
        except ValueError as error:  # closed by another thread
            raise Unavailable("QEMU's monitor is gone") from error
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(int(remaining * 1000) + 1):
            raise DeadlineExceeded("QEMU's monitor did not answer in time")


def _document(line: bytes) -> Document:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed("QEMU sent no valid JSON") from error
    if not isinstance(document, dict):
        raise Malformed("QEMU sent no JSON object")
    return document


def _value(command: str, answer: Document) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("return")
    if not isinstance(error, dict):
        raise Malformed(f"QEMU answered {command} with nonsense")
    raise QmpError(command, str(error.get("class", "")), str(error.get("desc", "")))
