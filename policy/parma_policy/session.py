# SPDX-License-Identifier: Apache-2.0
"""A conversation with a policy as a value: the policy, what has been allowed so far, and what to go back to.

Every method returns another session and leaves this one as it was. So a transaction is nothing but a remembered state:
going back restores exactly that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from parma_policy.framework import GUEST, Decision, Platform
from parma_policy.loaded import DataPolicy, LoadedPolicy
from parma_policy.model import Policy
from parma_wire.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Session:
    """Start with ``Session.of(policy)`` or ``Session.with_loaded(loaded)``."""

    loaded: LoadedPolicy
    platform: Platform
    state: Any
    remembered: tuple[Any] | None = None
    """The state at the start of the open transaction; None while there is none."""

    @classmethod
    def of(cls, policy: Policy, platform: Platform = GUEST) -> Session:
        """Nothing has been allowed yet by this policy, which has no rules of its own."""
        return cls.with_loaded(DataPolicy(policy, platform), platform)

    @classmethod
    def with_loaded(cls, loaded: LoadedPolicy, platform: Platform = GUEST) -> Session:
        """The same for any policy, loaded for this platform."""
        return cls(loaded, platform, loaded.initial_state())

    def ask(self, point: str, request: Mapping[str, object]) -> tuple[Decision, Session]:
        """One request: the answer and the session after it. Raises Malformed as ``decide`` does."""
        decision, after = self.loaded.decide(self.state, point, request)
        return decision, replace(self, state=after)

    def on(self, platform: Platform) -> Session:
        """The same conversation, on a platform with other constants from now on."""
        return replace(self, loaded=self.loaded.with_platform(platform), platform=platform)

    def begin(self) -> Session:
        """Opens a transaction. Raises FailedPrecondition inside of one: transactions do not nest."""
        if self.remembered is not None:
            raise FailedPrecondition("a transaction is open already", hint="transactions do not nest")
        return replace(self, remembered=(self.state,))

    def commit(self) -> Session:
        """Keeps what happened since ``begin``. Raises FailedPrecondition outside of a transaction."""
        self._opened()
        return replace(self, remembered=None)

    def roll_back(self) -> Session:
        """Takes back what happened since ``begin``. Raises FailedPrecondition outside of a transaction."""
        return replace(self, state=self._opened(), remembered=None)

    def _opened(self) -> Any:
        if self.remembered is None:
            raise FailedPrecondition("no transaction is open")
        return self.remembered[0]
