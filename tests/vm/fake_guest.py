# SPDX-License-Identifier: Apache-2.0
"""An enforcer that decides nothing: it records requests and fails where the test wants it to."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import ttrpc
from parma_wire import guest_pb2 as pb
from parma_wire.errors import ParmaError

SERVICE = pb.DESCRIPTOR.services_by_name["Guest"]


class FakeGuest:
    """Serves ``parma.guest.v1.Guest`` on any number of socket pairs."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.failures: dict[str, ParmaError] = {}
        self.answers: dict[str, Any] = {"Hello": pb.HelloResponse(version="1", tee="emulated")}
        self.stuck: set[str] = set()
        self.late: dict[str, float] = {}
        """Seconds that a method takes."""
        self.released = threading.Event()
        self.policy = b""
        self._server = ttrpc.Server()
        self._server.register(SERVICE, _Service(self))
        self._threads: list[threading.Thread] = []

    def connect(self) -> socket.socket:
        near, far = socket.socketpair()
        thread = threading.Thread(target=self._server.serve_connection, args=(far,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return near

    def close(self) -> None:
        self.released.set()
        self._server.close()
        for thread in self._threads:
            thread.join(60)

    @property
    def methods(self) -> list[str]:
        """Names of the requests so far, without the exchange of the policy and of evidence."""
        boring = {"Hello", "PutPolicy", "SetPolicy", "Evidence"}
        return [name for name, _ in self.requests if name not in boring]

    def handle(self, name: str, request: Any) -> Any:
        self.requests.append((name, request))
        if name in self.stuck:
            self.released.wait(30)
        self.released.wait(self.late.get(name, 0))
        if name in self.failures:
            raise self.failures[name]
        if name == "PutPolicy":
            assert request.offset == len(self.policy)
            self.policy += request.data
        elif name == "SetPolicy" and name not in self.answers:
            return pb.SetPolicyResponse(policy_sha256=hashlib.sha256(self.policy).digest())
        elif name == "CreateContainer" and name not in self.answers:
            return pb.CreateContainerResponse(pid=42)
        elif name == "CreateSandbox" and name not in self.answers:
            return pb.CreateSandboxResponse(pid=41)
        return self.answers.get(name, getattr(pb, f"{name}Response")())

    def answered(self, name: str) -> None:
        """The answer to a request is on its way."""


class _Service:
    def __init__(self, guest: FakeGuest) -> None:
        for method in SERVICE.methods:
            setattr(self, method.name, _handler(guest, method.name))


def _handler(guest: FakeGuest, name: str) -> Callable[[Any, Any], Any]:
    def handle(request: Any, context: ttrpc.Context) -> Any:
        context.after_reply(lambda: guest.answered(name))
        return guest.handle(name, request)

    return handle
