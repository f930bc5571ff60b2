# SPDX-License-Identifier: Apache-2.0
"""Is there an order, one request after the other, in which what several hosts saw at once makes sense?

The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993): a request may come next when none that
is left had been answered before it was made. What is left and where the model stands are looked at once only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.guest.model import Model, Request, step


class Seen(NamedTuple):
    """A request, when it was made and answered (any clock that goes forward), and what the host was told."""

    request: Request
    made: float
    answered: float
    done: bool


def explain(history: Sequence[Seen], model: Model) -> list[Seen] | None:
    """A legal order of the whole history, or None when there is none."""
    order: list[Seen] = []
    return order if _search(tuple(sorted(history, key=lambda seen: seen.answered)), model, order, set()) else None


def _search(left: tuple[Seen, ...], model: Model, order: list[Seen], visited: set[tuple[int, str]]) -> bool:
    if not left:
        return True
    place = (hash(left), model.key())
    if place in visited:
        return False
    visited.add(place)
    first_answer = left[0].answered
    for index, seen in enumerate(left):
        if seen.made > first_answer:
            continue
        outcome = step(model, seen.request)
        if outcome.done is not seen.done:
            continue
        order.append(seen)
        if _search(left[:index] + left[index + 1 :], outcome.model, order, visited):
            return True
        order.pop()
    return False
