# SPDX-License-Identifier: Apache-2.0
"""From a protobuf service descriptor to methods that can be called.

The protobuf library is imported when a service is registered or called, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ttrpc.errors import Status, TtrpcError

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from ttrpc.context import Context

    Interceptor = Callable[[str, Any, Context, Callable[[], Any]], Any]
    """Full method name, request, context, a function that calls the handler -> the response."""


def call_handler(_method: str, _request: Any, _context: Context, handle: Callable[[], Any]) -> Any:
    """The interceptor that adds nothing."""
    return handle()


class Method:
    """One method of a service and the function that implements it."""

    __slots__ = ("client_streaming", "handler", "name", "request_class", "server_streaming")

    def __init__(
        self,
        name: str,
        handler: Callable[..., Any],
        request_class: type[Message],
        *,
        client_streaming: bool,
        server_streaming: bool,
    ) -> None:
        self.name = name
        self.handler = handler
        self.request_class = request_class
        self.client_streaming = client_streaming
        self.server_streaming = server_streaming

    @property
    def streaming(self) -> bool:
        """Whether either side may send more than one message."""
        return self.client_streaming or self.server_streaming


def message_class(descriptor: Descriptor) -> type[Message]:
    """The class of a message type."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(descriptor)


def methods_of(service: ServiceDescriptor, implementation: object) -> dict[str, Method]:
    """The methods of ``service`` that ``implementation`` has attributes for.

    Raises:
        TypeError: it has none of them.
    """
    methods = {}
    for method in service.methods:
        handler = getattr(implementation, method.name, None)
        if handler is not None:
            methods[method.name] = Method(
                f"{service.full_name}/{method.name}",
                handler,
                message_class(method.input_type),
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
            )
    if not methods:
        raise TypeError(f"{type(implementation).__name__} implements no method of {service.full_name}")
    return methods


def parse(message: type[Message], data: bytes, code: Status) -> Any:
    """Parses a message received.

    Raises:
        TtrpcError: with ``code``: not such a message.
    """
    try:
        return message.FromString(data)
    except Exception as error:
        raise TtrpcError(code, f"not a valid {message.DESCRIPTOR.full_name}") from error
