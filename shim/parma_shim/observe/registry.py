# SPDX-License-Identifier: Apache-2.0
"""Counts and durations, kept in memory until somebody reads them.

Not ``prometheus_client``: this lives in every idle shim, whose memory is measured against a Go shim's, and the library
brings an HTTP server along. Its parser checks our output in the tests.
"""

from __future__ import annotations

import bisect
import threading
from typing import Final, NamedTuple

BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds: from an answer out of memory to the boot of a VM under emulation."""

Labels = tuple[tuple[str, str], ...]


class Histogram(NamedTuple):
    """How long something took."""

    counts: tuple[int, ...]
    """Per bucket, the last one being above every bound."""

    total: float
    """Seconds altogether."""


class Snapshot(NamedTuple):
    """Everything at one moment, by name and labels."""

    counters: dict[str, dict[Labels, float]]
    histograms: dict[str, dict[Labels, Histogram]]


class Registry:
    """Safe for several threads. Labels must come from a fixed set: what was counted once is never forgotten."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._counters: dict[str, dict[Labels, float]] = {}
        self._counts: dict[str, dict[Labels, list[int]]] = {}
        self._totals: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Counts."""
        with self._lock:
            by_labels = self._counters.setdefault(name, {})
            by_labels[labels] = by_labels.get(labels, 0) + amount

    def observe(self, name: str, seconds: float, labels: Labels = ()) -> None:
        """Notes how long something took."""
        with self._lock:
            counts = self._counts.setdefault(name, {}).setdefault(labels, [0] * (len(BUCKETS) + 1))
            counts[bisect.bisect_left(BUCKETS, seconds)] += 1
            totals = self._totals.setdefault(name, {})
            totals[labels] = totals.get(labels, 0.0) + seconds

    def snapshot(self) -> Snapshot:
        """A copy."""
        with self._lock:
            counters = {name: dict(values) for name, values in self._counters.items()}
            histograms = {
                name: {
                    labels: Histogram(tuple(counts), self._totals[name][labels]) for labels, counts in values.items()
                }
                for name, values in self._counts.items()
            }
        return Snapshot(counters, histograms)
