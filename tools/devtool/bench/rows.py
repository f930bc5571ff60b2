# SPDX-License-Identifier: Apache-2.0
"""What is measured, and how it is printed: medians of interleaved runs, and ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured quantity for both runtimes; ``unit`` says of what."""

    name: str
    unit: str
    runc: float
    parma: float

    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        return self.parma / self.runc


def head() -> None:
    """What the columns of `report` are."""
    print(f"{'':44} {'parma':>10} {'runc':>10} {'':5} ratio (below 1: Parma needs less)", flush=True)


def report(row: Row) -> Row:
    better = " (more is better)" if row.more_is_better else ""
    ratio = f"x{row.ratio:.2f}" if row.ratio >= 0.1 else f"x{row.ratio:.4f}"
    print(f"{row.name:44} {row.parma:10.2f} {row.runc:10.2f} {row.unit:5} {ratio}{better}", flush=True)
    return row


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def interleaved(rounds: int, actions: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each action over the rounds; the actions take turns, so that noise hits all alike."""
    samples: dict[str, list[float]] = {key: [] for key in actions}
    for _ in range(rounds):
        for key, action in actions.items():
            samples[key].append(action())
    return {key: statistics.median(values) for key, values in samples.items()}
