# SPDX-License-Identifier: Apache-2.0
"""A server whose clients die where a test wants them to: at every boundary of a request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import ttrpc
from tests.ttrpc.support import wait_until
from ttrpc import envelope, frames
from ttrpc.service import message_class

PATIENCE = 30.0


class Cut(Enum):
    """Where the client dies."""

    IN_THE_HEADER = "in the middle of the frame's header"
    IN_THE_REQUEST = "before the last byte of the request"
    BEFORE = "when the request has arrived and nothing was done"
    ASKED = "when the policy has said yes and nothing was done"
    DONE = "when it is done and not answered"
    ANSWERED = "when it has the answer"

    @property
    def torn(self) -> bool:
        """Whether the server never has the whole request."""
        return self in (Cut.IN_THE_HEADER, Cut.IN_THE_REQUEST)


class MortalClients:
    """One service, and clients on connections of their own that live for one request."""

    def __init__(self, service: Any, implementation: object) -> None:
        """``service``: its descriptor."""
        self._service = service
        self._classes = {method.name: message_class(method.output_type) for method in service.methods}
        self._cut: Cut | None = None
        self._client: socket.socket | None = None
        self._context: ttrpc.Context | None = None
        self._handled = threading.Event()
        self._threads: list[threading.Thread] = []
        self.log: list[str] = []
        self.server = ttrpc.Server(interceptor=self._intercept, log=self.log.append)
        self.server.register(service, implementation)

    def dial(self) -> socket.socket:
        """A bare connection."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        thread = threading.Thread(target=self.server.serve_connection, args=(theirs,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return ours

    def frame(self, method: str, message: Any) -> bytes:
        """A request as it goes over the wire."""
        body = envelope.encode_request(envelope.Request(self._service.full_name, method, message.SerializeToString()))
        return frames.encode(1, frames.REQUEST, 0, body)

    def call(self, method: str, message: Any) -> object:
        """By a client that lives: the answer, or the code of the refusal."""
        with ttrpc.Client(self.dial()) as client:
            try:
                answer: object = client.call(
                    self._service.full_name, method, message, self._classes[method], timeout=PATIENCE
                )
            except ttrpc.TtrpcError as error:
                answer = error.code
        client.join(PATIENCE)
        self.settle()
        return answer

    def die(self, method: str, message: Any, cut: Cut) -> None:
        """A client asks, and is gone at this point."""
        frame = self.frame(method, message)
        self._cut, self._client = cut, self.dial()
        self._handled.clear()
        with self._client:
            if cut.torn:
                self._client.sendall(frame[:5] if cut is Cut.IN_THE_HEADER else frame[:-1])
            else:
                self._client.sendall(frame)
                if cut is Cut.ANSWERED:
                    assert _one_frame(self._client).type == frames.RESPONSE
                assert self._handled.wait(PATIENCE)
        self._cut = None
        self.settle()

    def reach(self, cut: Cut) -> None:
        """Goes on when the server has noticed that the client is dead, if this is where it dies."""
        if self._cut is not cut or self._client is None or self._context is None:
            return
        noticed = threading.Event()
        self._context.on_cancel(noticed.set)
        self._client.close()
        assert noticed.wait(PATIENCE)

    def settle(self) -> None:
        """Waits until nothing is left of the clients that went."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._threads.clear()
        wait_until(lambda: not self.server.held)
        assert not self.server.connections

    def close(self) -> None:
        """Ends everything; nothing may have failed in a way that clients are not told about."""
        self.server.close()
        self.settle()
        assert not self.log, self.log

    def _intercept(self, _method: str, _request: Any, context: ttrpc.Context, handle: Callable[[], Any]) -> Any:
        self._context = context
        try:
            self.reach(Cut.BEFORE)
            answer = handle()
            self.reach(Cut.DONE)
            return answer
        finally:
            self._handled.set()


def _one_frame(sock: socket.socket) -> frames.Frame:
    decoder = frames.Decoder()
    while True:
        data = sock.recv(65536)
        assert data, "the connection ended before the answer"
        for frame in decoder.feed(data):
            return frame
