# SPDX-License-Identifier: Apache-2.0
"""Calls that look like methods, made from a service descriptor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ttrpc.service import message_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from ttrpc.client import Client, ClientStream


class Stub:
    """One service of a server; has a method for each RPC.

    * unary: ``stub.Get(GetRequest(), timeout=5, metadata=None)`` returns the response, see :meth:`Client.call`;
    * streaming: ``stub.Watch(request=None, timeout=None, metadata=None)`` returns a stream, see
      :meth:`Client.stream`; ``request`` is for methods to which the client streams nothing.
    """

    def __init__(self, client: Client, service: ServiceDescriptor, name: str | None = None) -> None:
        for method in service.methods:
            make = _stream if method.client_streaming or method.server_streaming else _unary
            setattr(self, method.name, make(client, name or service.full_name, method))

    if TYPE_CHECKING:

        def __getattr__(self, _name: str) -> Callable[..., Any]: ...


def stub(client: Client, service: ServiceDescriptor, name: str | None = None) -> Stub:
    """The methods of ``service`` over ``client``; ``name`` replaces the service's full name on the wire."""
    return Stub(client, service, name)


def _unary(client: Client, service: str, method: MethodDescriptor) -> Callable[..., Message]:
    response_class = message_class(method.output_type)

    def call(request: Message, *, timeout: float | None, metadata: Mapping[str, str] | None = None) -> Message:
        return client.call(service, method.name, request, response_class, timeout=timeout, metadata=metadata)

    return call


def _stream(client: Client, service: str, method: MethodDescriptor) -> Callable[..., ClientStream]:
    response_class = message_class(method.output_type)

    def open_stream(
        request: Message | None = None, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> ClientStream:
        return client.stream(
            service,
            method.name,
            response_class,
            request=request,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            timeout=timeout,
            metadata=metadata,
        )

    return open_stream
