# SPDX-License-Identifier: Apache-2.0
"""Traces: asked for by the environment, with the caller's parent, and nothing that the guest says out of bounds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from parma_shim.observe import traces
from parma_shim.observe.traces import Tracing, boot_spans
from parma_wire.errors import Unsupported

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Tracing(provider)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
    ],
)
def test_the_environment_decides(environment: Mapping[str, str], *, wanted: bool) -> None:
    assert traces.wanted(environment) is wanted


def test_another_protocol_is_said_and_the_shim_goes_on_without() -> None:
    warnings: list[str] = []
    environment = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(Unsupported, match="http/protobuf"):
        traces.start(environment, {})
    assert traces.tracing_or_none(environment, {}, warnings.append) is None
    assert len(warnings) == 1


def test_nothing_of_the_libraries_is_imported_unless_asked() -> None:
    code = (
        "import sys; from parma_shim.observe import observer, traces; traces.tracing_or_none({}, {}, print); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_call_is_a_child_of_containerds_span_and_the_guests_calls_are_its_children(
    tracing: Tracing, spans: InMemorySpanExporter
) -> None:
    with (
        tracing.serving("containerd.task.v3.Task/Start", {"traceparent": PARENT}),
        tracing.asking_guest("StartContainer"),
    ):
        pass
    inner, outer = spans.get_finished_spans()
    assert outer.name == "containerd.task.v3.Task/Start"
    assert outer.parent is not None
    assert f"{outer.parent.trace_id:032x}-{outer.parent.span_id:016x}" in PARENT
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_parent_that_makes_no_sense_is_no_parent(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    with tracing.serving("containerd.task.v3.Task/Start", {"traceparent": "nonsense"}):
        pass
    (span,) = spans.get_finished_spans()
    assert span.parent is None


def test_the_parts_of_a_start_are_children_of_the_create(tracing: Tracing, spans: InMemorySpanExporter) -> None:
    with tracing.serving("containerd.task.v3.Task/Create", {}):
        tracing.booted(boot_spans({"qemu": 1, "kernel": 2}, began=1_000_000, now=9_000_000))
    qemu, kernel, create = spans.get_finished_spans()
    assert [(span.name, span.start_time, span.end_time) for span in (qemu, kernel)] == [
        ("boot/qemu", 1_000_000, 2_000_000),
        ("boot/kernel", 2_000_000, 4_000_000),
    ]
    assert {span.parent.span_id for span in (qemu, kernel) if span.parent} == {create.context.span_id}


@given(
    st.dictionaries(st.text(max_size=8), st.floats(min_value=-1e12, max_value=1e12), max_size=8),
    st.integers(0, 1 << 62),
    st.integers(0, 1 << 50),
)
def test_no_span_leaves_the_time_that_the_host_saw(timings: dict[str, float], began: int, length: int) -> None:
    end = began + length
    before = began
    for span in boot_spans(timings, began=began, now=end):
        assert before == span.start <= span.end <= end
        before = span.end
