# SPDX-License-Identifier: Apache-2.0
"""What is noted about calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parma_shim.api import task_pb2
from parma_shim.observe.calls import CallObserver
from parma_shim.observe.registry import Registry
from parma_wire.errors import Denied, NotFound
from ttrpc import Context


class Lines:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, object]]] = []

    def warning(self, message: str, **fields: object) -> None:
        self.warnings.append((message, fields))


def fails(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


START = (("service", "Task"), ("method", "Start"))


def test_an_answered_call_is_timed_under_its_method() -> None:
    registry = Registry()
    observer = CallObserver(registry, Lines())
    assert observer.serve("containerd.task.v3.Task/Start", None, Context(), lambda: 7) == 7  # type: ignore[arg-type]
    assert sum(registry.snapshot().histograms["parma_shim_rpc_duration_seconds"][START].counts) == 1
    assert registry.snapshot().counters == {}


def test_a_failure_is_counted_by_code_and_raised_as_it_was() -> None:
    registry = Registry()
    observer = CallObserver(registry, Lines())
    error = NotFound("no container")
    with pytest.raises(NotFound) as caught:
        observer.serve("containerd.task.v3.Task/Start", task_pb2.StartRequest(id="c"), Context(), fails(error))
    assert caught.value is error
    assert registry.snapshot().counters == {"parma_shim_rpc_failures_total": {(*START, ("code", "5")): 1}}


def test_an_error_of_no_known_kind_counts_as_unknown() -> None:
    registry = Registry()
    with pytest.raises(ZeroDivisionError):
        CallObserver(registry, Lines()).ask_guest("Stats", fails(ZeroDivisionError()))
    assert registry.snapshot().counters["parma_shim_guest_call_failures_total"] == {
        (("method", "Stats"), ("code", "2")): 1
    }


def test_a_denial_is_a_record_with_the_container_and_counted_by_request() -> None:
    registry, lines = Registry(), Lines()
    observer = CallObserver(registry, lines)
    request = task_pb2.StartRequest(id="web", exec_id="e1")
    with pytest.raises(Denied):
        observer.serve(
            "containerd.task.v3.Task/Start",
            request,
            Context(),
            lambda: observer.ask_guest("ExecProcess", fails(Denied("exec_in_container not allowed"))),
        )
    assert lines.warnings == [
        ("denied: exec_in_container not allowed", {"method": "Start", "container": "web", "exec": "e1"})
    ]
    assert registry.snapshot().counters["parma_shim_denials_total"] == {(("method", "ExecProcess"),): 1}


def test_waits_are_counted_and_not_timed() -> None:
    registry = Registry()
    CallObserver(registry, Lines()).ask_guest("WaitProcess", lambda: None)
    found = registry.snapshot()
    assert found.histograms == {}
    assert found.counters == {"parma_shim_guest_call_waits_total": {(("method", "WaitProcess"),): 1}}
