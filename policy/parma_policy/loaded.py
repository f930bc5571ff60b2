# SPDX-License-Identifier: Apache-2.0
"""One way to load a policy and to ask it, whether it has rules of its own or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from parma_policy.framework import GUEST, Decision, Platform, State, decide
from parma_policy.model import Policy
from parma_policy.reader import has_own_rules, load
from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_policy.rego import Engine


class LoadedPolicy(Protocol):
    """A policy and the platform that it decides for. The state is an opaque, immutable value."""

    @property
    def policy(self) -> Policy:
        """What is data in it."""

    def initial_state(self) -> Any:
        """Nothing has been allowed yet."""

    def decide(self, state: Any, point: str, request: Mapping[str, object]) -> tuple[Decision, Any]:
        """Decides one request: the answer, and the state after it. Raises Malformed."""

    def with_platform(self, platform: Platform) -> LoadedPolicy:
        """The same policy on another platform."""


class DataPolicy:
    """A policy of data and rules that are the framework's."""

    def __init__(self, policy: Policy, platform: Platform = GUEST) -> None:
        self.policy = policy
        self._platform = platform

    @staticmethod
    def initial_state() -> State:
        """See `LoadedPolicy`."""
        return State.initial()

    def decide(self, state: State, point: str, request: Mapping[str, object]) -> tuple[Decision, State]:
        """See `LoadedPolicy`."""
        return decide(self.policy, state, point, request, platform=self._platform)

    def with_platform(self, platform: Platform) -> DataPolicy:
        """See `LoadedPolicy`."""
        return DataPolicy(self.policy, platform)


def load_policy(
    data: bytes, engine: Engine | None = None, *, parity: bool = False, platform: Platform = GUEST
) -> LoadedPolicy:
    """Loads a policy; with an engine also one with rules of its own. Raises what ``reader.load`` and ``rego.load``
    raise."""
    try:
        return DataPolicy(load(data, parity=parity), platform)
    except Malformed:
        if engine is None or not has_own_rules(data, parity=parity):
            raise
    from parma_policy import rego

    return rego.load(data, engine, parity=parity, platform=platform)
