# SPDX-License-Identifier: Apache-2.0
"""The parts of observation put together, one per shim."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from parma_shim.observe import traces
from parma_shim.observe.calls import CallObserver
from parma_shim.observe.registry import Registry

_MILLISECOND: Final = 1_000_000


class Observer:
    """Metrics from the first VM on; traces from the start, if the environment asks for them."""

    def __init__(self, log: Any, *, namespace: str, group: str) -> None:
        """``log`` is a ``parma_shim.log.Log``; namespace and group name the shim in all that leaves it."""
        self.registry: Final = Registry()
        self._log: Final = log
        self._labels: Final = (("containerd_namespace", namespace), ("group", group))
        names = {"containerd.namespace": namespace, "parma.group": group}
        self._tracing: Final = traces.tracing_or_none(os.environ, names, log.warning)
        self.calls: Final = CallObserver(self.registry, log, self._tracing)
        self._endpoint: Any = None

    def booted(self, directory: Path, timings: Mapping[str, float], view: Callable[[], Any]) -> None:
        """A VM has accepted its policy.

        Args:
            directory: the VM's; the socket is made there, and goes with it.
            timings: milliseconds of the parts of its start, in order.
            view: makes a ``parma_shim.observe.collect.View``.
        """
        if self._tracing is not None:
            now = time.time_ns()
            began = now - int(sum(timings.values()) * _MILLISECOND)
            self._tracing.booted(traces.boot_spans(timings, began=began, now=now))
        from parma_shim.observe import collect
        from parma_shim.observe.endpoint import MetricsEndpoint

        self._close_endpoint()
        try:
            self._endpoint = MetricsEndpoint(directory, lambda: collect.text(view(), self.registry, self._labels))
        except OSError as error:
            self._log.warning(f"no metrics: {error}")

    def close(self) -> None:
        """Stops listening and sends the last spans."""
        self._close_endpoint()
        if self._tracing is not None:
            self._tracing.close()

    def _close_endpoint(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
