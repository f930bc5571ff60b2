# SPDX-License-Identifier: Apache-2.0
"""Connections of the host to TCP ports on the containers' loopback (``kubectl port-forward``).

Software trusts whoever comes by loopback to be one of its own. So the policy lists ports, and none are the answer of a
policy that says nothing of them. Where attestation serves one container on loopback, with keys that are for it alone,
nobody is connected at all: a connection is made first and nothing is sent on it before that has been looked at, so
whoever began to listen before the connection was there has been seen.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from parma_guest import decisions
from parma_guest.containers import Members, Network
from parma_guest.enforcer import Enforcer
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed, Unavailable
from parma_wire.limits import MAX_FORWARDED
from parma_wire.relay import Relay

_MAX_PORT: Final = 65535


class Frames(Protocol):
    """What is needed of ttrpc's server stream."""

    def recv(self) -> pb.ForwardFrame | None:
        """The next frame; None when the host has closed its side."""

    def send(self, frame: pb.ForwardFrame, /) -> None:
        """Raises when the connection is gone."""


class Forwarder:
    """Of one group. For several threads; holds the enforcer's lock at no time."""

    def __init__(self, enforcer: Enforcer, network: Network, members: Members) -> None:
        self._enforcer = enforcer
        self._network = network
        self._members = members
        self._free = threading.BoundedSemaphore(MAX_FORWARDED)

    def serve(self, stream: Frames) -> None:
        """One connection, from its ``open`` frame to its end. Raises ParmaError."""
        first = stream.recv()
        if first is None:
            return
        port = _port(first)
        with self._enforcer.read("Forward") as policy:
            policy.ask("forward_port", decisions.forward_port(port))
        if not self._free.acquire(blocking=False):
            raise FailedPrecondition("too many connections to containers' ports", expected=f"at most {MAX_FORWARDED}")
        try:
            self._forward(stream, port)
        finally:
            self._free.release()

    def _forward(self, stream: Frames, port: int) -> None:
        try:
            connection = self._network.connect(port)
        except OSError as error:
            raise Unavailable(f"nobody accepts connections to port {port} of the containers' loopback") from error
        with connection:
            if self._members.has_endpoints:
                raise Denied("a container's endpoints of attestation are on loopback, and for nobody else")
            Relay(connection, stream).run()


def _port(frame: pb.ForwardFrame) -> int:
    if frame.WhichOneof("frame") != "open":
        raise Malformed("a forwarded connection begins with an 'open' frame")
    if not 0 < frame.open.port <= _MAX_PORT:
        raise Malformed("no such port", expected=f"1 to {_MAX_PORT}")
    return frame.open.port
