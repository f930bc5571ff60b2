# SPDX-License-Identifier: Apache-2.0
"""Steps to take back, in reverse."""

from __future__ import annotations

from collections.abc import Callable

from parma_wire.errors import DeadlineExceeded, ParmaError

Log = Callable[[str], None]


class Undo:
    """What undoes a sequence of steps. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def push(self, what: str, step: Callable[[], None]) -> None:
        """To be called right after the step that ``step`` undoes has succeeded."""
        self._steps.append((what, step))

    def run(self, log: Log) -> bool:
        """Undo everything, the last step first. Failures are logged and do not stop the rest.

        False when a step got no answer in time: who should have answered is stuck, and the rest was not tried.
        """
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except DeadlineExceeded as error:
                log(f"{what}: {error}")
                self._steps.clear()
                return False
            except ParmaError as error:
                log(f"{what}: {error}")
        return True
