# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry traces, where containerd's environment asks for them by naming a collector.

``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` asks; ``OTEL_SDK_DISABLED=true`` and
``OTEL_TRACES_EXPORTER=none`` do not want to. The libraries (extra ``traces``) are imported only then.

The guest has no part in this. Spans of its start are made here from what it says of itself, which is untrusted: names
are bounded and printable, times are put between the moments at which the host saw the VM start and answer.
Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "SDK environment variables".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from parma_wire.errors import Unsupported

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PROTOCOL: Final = "http/protobuf"
_SERVICE: Final = "containerd-shim-parma-v2"
_FLUSH_MILLISECONDS: Final = 1000


class Span(NamedTuple):
    """A span that is over, in nanoseconds since 1970."""

    name: str
    start: int
    end: int


class BootTracer(Protocol):
    """What of a tracer the group needs."""

    def booted(self, spans: Sequence[Span]) -> None:
        """The parts of a VM's start."""


class Tracing:
    """Implements ``parma_shim.observe.calls.Tracer`` and :class:`BootTracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider: Final = provider
        self._trace: Final = trace
        self._tracer: Final = provider.get_tracer("parma_shim")
        self._propagator: Final = TraceContextTextMapPropagator()

    def serving(self, method: str, metadata: Mapping[str, str]) -> AbstractContextManager[None]:
        """A span around a call of containerd's; ``traceparent`` in ``metadata`` names its parent."""
        service, _, name = method.rpartition("/")
        attributes = {"rpc.system": "ttrpc", "rpc.service": service, "rpc.method": name}
        context = self._propagator.extract(dict(metadata))
        return self._span(method, self._trace.SpanKind.SERVER, attributes, context)

    def asking_guest(self, method: str) -> AbstractContextManager[None]:
        """A span around a call to the guest, which is not told of it."""
        return self._span(f"guest/{method}", self._trace.SpanKind.CLIENT, {"rpc.system": "ttrpc", "rpc.method": method})

    def booted(self, spans: Sequence[Span]) -> None:
        """As children of the span that is current: the Create that started the VM."""
        for span in spans:
            self._tracer.start_span(f"boot/{span.name}", start_time=span.start).end(span.end)

    def close(self) -> None:
        """Sends what is left, for at most a second."""
        self._provider.force_flush(_FLUSH_MILLISECONDS)
        self._provider.shutdown()

    @contextlib.contextmanager
    def _span(
        self, name: str, kind: object, attributes: Mapping[str, str], context: object | None = None
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name,
            context=context,  # type: ignore[arg-type]
            kind=kind,  # type: ignore[arg-type]
            attributes=attributes,
        ):
            yield


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return False
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environment.get(name, "").strip() for name in names)


def start(environment: Mapping[str, str], attributes: Mapping[str, str]) -> Tracing:
    """Traces to the collector that the environment names. ``attributes`` describe this shim.

    Raises Unsupported where the libraries are missing or another protocol is asked for.
    """
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if (protocol or PROTOCOL) != PROTOCOL:
        raise Unsupported(f"traces over {protocol!r}", expected=PROTOCOL)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise Unsupported(f"no traces: {error.name} is not installed", hint="pip install 'parma[traces]'") from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": _SERVICE, **attributes}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def boot_spans(timings: Mapping[str, float], *, began: int, now: int) -> list[Span]:
    """The parts of a VM's start one after the other, from milliseconds that are in part the guest's own words.

    Args:
        timings: in order.
        began, now: when the host started QEMU and when the guest had accepted its policy, in nanoseconds since 1970;
            no span leaves that interval.
    """
    spans = []
    start = began
    for name, milliseconds in timings.items():
        end = min(now, start + max(0, int(milliseconds * 1_000_000)))
        spans.append(Span(name, start, end))
        start = end
    return spans


def tracing_or_none(
    environment: Mapping[str, str], attributes: Mapping[str, str], warn: Callable[[str], None]
) -> Tracing | None:
    """:func:`start` where it is wanted; a shim without traces is better than none."""
    if not wanted(environment):
        return None
    try:
        return start(environment, attributes)
    except Unsupported as error:
        warn(str(error))
        return None
