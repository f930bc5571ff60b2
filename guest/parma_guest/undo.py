# SPDX-License-Identifier: Apache-2.0
"""Several side effects as one: when a later one fails, the earlier ones are taken back."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from parma_wire.errors import NotFound, ParmaError, Unavailable


class CleanupFailed(Unavailable):
    """Something that should be gone is still there. The container group is not to be trusted with changes any more."""


class Undo:
    """``with Undo() as undo: act(); undo.add(take_back); ...`` — runs the callbacks, last first, only on failure.

    If a callback fails too, the rest still run and `CleanupFailed` is raised instead of the first error.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []

    def add(self, callback: Callable[[], object]) -> None:
        """Registers what takes the last step back."""
        self._callbacks.append(callback)

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, CleanupFailed):
            failed: BaseException | None = error
        else:
            failed = None
        for callback in reversed(self._callbacks):
            try:
                callback()
            except (OSError, ParmaError) as problem:
                failed = problem
        if failed is not None and failed is not error:
            raise CleanupFailed(f"{error}; and taking it back failed: {failed}") from error


def must(act: Callable[[], None]) -> None:
    """Carries out the removal of something; anything but "there is no such thing" means that it is still there."""
    try:
        act()
    except NotFound:
        raise
    except (OSError, ParmaError) as error:
        raise CleanupFailed(f"something could not be removed: {error}") from error
