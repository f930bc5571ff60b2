# SPDX-License-Identifier: Apache-2.0
"""Process 1 of the ``rego`` variant of the guest image: policies may have rules of their own.

A policy that is only data is loaded and decided as in any guest, and the engine never runs. For others it is a child
that has given up everything (``rego_engine/confine.go``): another user without capabilities, namespaces with nothing
in them, limits on memory, and no system calls but those of computing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from parma_guest import init
from parma_guest.decisions import Document, FrameworkEngine, Verdict, verdict
from parma_guest.enforcer import LoadPolicy
from parma_guest.reaper import Reaper
from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_guest.decisions import Engine

PROGRAM: Final = "/usr/lib/parma/rego-engine"


class RegoEngine:
    """`Engine` over ``parma_policy.rego``."""

    records = True
    permissive = False
    open_door = False

    def __init__(self, policy: bytes, reaper: Reaper) -> None:
        """Raises `Malformed` for a policy that the engine refuses, `Unavailable` where there is no engine."""
        from parma_policy import rego
        from parma_policy.rego.link import ChildEngine

        self._policy = rego.load(policy, ChildEngine(lambda stdin, stdout: _Program(reaper, stdin, stdout)))

    def initial_state(self) -> Any:
        """See `Engine`."""
        return self._policy.initial_state()

    def wants_endorsements(self) -> bool:
        """See `Engine`: what the policy's rules will say is not known."""
        return True

    def decide(self, state: Any, point: str, request: Document) -> tuple[Verdict, Any]:
        """See `Engine`."""
        decision, after = self._policy.decide(state, point, request)
        return verdict(decision), after

    def after_denial(self, before: Any, asked: Any, after: Any) -> Any:
        """See `Engine`: what rules have recorded stays, also where what this request was allowed before is undone."""
        if asked is before:
            return after
        return replace(before, metadata=replace(after.metadata, framework=before.metadata.framework))


class _Program:
    """The engine's process."""

    def __init__(self, reaper: Reaper, stdin: int, stdout: int) -> None:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._child = reaper.spawn([PROGRAM, "-confine"], (stdin, stdout, null))
        finally:
            os.close(null)

    def kill(self) -> None:
        """Ends it. The number may only be used while the process has not been reaped."""
        if not self._child.exited:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)


def loader(reaper: Reaper) -> LoadPolicy:
    """Loads policies with and without rules of their own."""

    def load(policy: bytes) -> Engine:
        try:
            return FrameworkEngine(policy)
        except Malformed:
            from parma_policy.reader import has_own_rules

            if not has_own_rules(policy):
                raise
        return RegoEngine(policy, reaper)

    return load


def main() -> None:
    """Never returns."""
    init.main(loader)
