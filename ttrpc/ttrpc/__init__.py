# SPDX-License-Identifier: Apache-2.0
"""ttrpc for Python: RPC over local sockets, wire-compatible with containerd's Go implementation.

::

    server = ttrpc.Server()
    server.register(echo_pb2.DESCRIPTOR.services_by_name["Echo"], EchoService())
    server.serve(listener)

    client = ttrpc.Client(sock)
    echo = ttrpc.stub(client, echo_pb2.DESCRIPTOR.services_by_name["Echo"])
    reply = echo.Say(echo_pb2.SayRequest(text="hello"), timeout=5)

Threads and blocking sockets; no dependency but the protobuf library, which is imported with the first service.
"""

from ttrpc.client import Client, ClientStream
from ttrpc.context import Context
from ttrpc.errors import Status, TtrpcError
from ttrpc.frames import MESSAGE_MAX
from ttrpc.server import Server, same_user
from ttrpc.serving import ServerStream
from ttrpc.stub import Stub, stub

__all__ = [
    "Client",
    "Server",
    "stub",
    "Context",
    "ServerStream",
    "ClientStream",
    "Stub",
    "Status",
    "TtrpcError",
    "same_user",
    "MESSAGE_MAX",
]
