# SPDX-License-Identifier: Apache-2.0
"""The open door: what decides where nothing is protected and nobody has said what may run.

A machine without a secure processor (``tee = none``) promises nothing to anybody. There, and nowhere else, a group may
go without a policy: its policy is the empty one, and every request is allowed that a permissive policy would allow
(:mod:`parma_policy.framework.permissive` says what stays enforced all the same), without a reason and without a
recording. No text of a policy leads here: the reader refuses empty ones, and only the guest's enforcer, which knows
from its measured command line that there is no TEE, asks this module.
"""

from __future__ import annotations

from collections.abc import Mapping

from parma_policy import framework
from parma_policy.framework.decision import Decision
from parma_policy.framework.permissive import FORCED
from parma_policy.framework.state import State
from parma_policy.framework.view import GUEST, View
from parma_policy.model import Policy
from parma_policy.points import OWN_POINTS, POINTS, closed_door
from parma_policy.reader import load

POLICY_BYTES = b""
"""The policy whose digest the group has."""


class OpenDoor:
    """Behaves as `parma_policy.loaded.LoadedPolicy`."""

    policy: Policy

    def __init__(self) -> None:
        # What is not forced (disks and scratch space that come and go, ids used once) is decided as for any policy.
        self.policy = load(closed_door().encode())

    def decide(self, state: State, point: str, request: Mapping[str, object]) -> tuple[Decision, State]:
        """One request: the answer, and the state after it. Raises Malformed."""
        forced = FORCED.get(point)
        if forced is None:
            return framework.decide(self.policy, state, point, request)
        typed = (POINTS.get(point) or OWN_POINTS[point]).schema.decode(request, point)
        after = forced(View(self.policy, state, GUEST), typed)
        if after is None:  # it contradicts what is there: the framework has the words
            return framework.decide(self.policy, state, point, typed)
        return Decision(allowed=True, point=point, allow_stdio_access=True), after
