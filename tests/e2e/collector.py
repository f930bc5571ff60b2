# SPDX-License-Identifier: Apache-2.0
"""An OTLP/HTTP trace collector."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class Collector:
    """On the loopback of the network namespace in which it is made."""

    def __init__(self) -> None:
        self._received: list[ResourceSpans] = []
        received = self._received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ExportTraceServiceRequest()
                message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend(message.resource_spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """For who is to send its traces here, soon."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}

    def spans(self, group: str, name: str) -> list[Span]:
        """Those of this name, from the shim of this container or pod."""
        return [
            span
            for resource in list(self._received)
            if any(
                item.key == "parma.group" and item.value.string_value == group for item in resource.resource.attributes
            )
            for scope in resource.scope_spans
            for span in scope.spans
            if span.name == name
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _group(resource: ResourceSpans) -> str:
    return next((item.value.string_value for item in resource.resource.attributes if item.key == "parma.group"), "")
