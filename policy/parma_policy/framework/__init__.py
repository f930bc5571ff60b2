# SPDX-License-Identifier: Apache-2.0
"""The framework: decides each enforcement point from the policy, what was allowed before, and the request.

``decide`` is pure: no input or output, no clock, nothing changed in place. It raises nothing but ``Malformed``, for a
request that is not of the shape which the point declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from parma_policy.framework.decision import Decision, Kind, Reason, allowed, denied, policy_error
from parma_policy.framework.handlers import HANDLERS
from parma_policy.framework.state import State
from parma_policy.framework.view import GUEST, Platform, View, unusable
from parma_policy.model import Policy
from parma_policy.points import OWN_POINTS, POINTS, Default, EnforcementPoint
from parma_policy.requests import LoadFragment

__all__ = ["GUEST", "POINTS", "Decision", "Kind", "Platform", "Reason", "State", "decide"]


def decide(
    policy: Policy, state: State, point: str, request: Mapping[str, object] | object, *, platform: Platform = GUEST
) -> tuple[Decision, State]:
    """Decides one request at one enforcement point: the answer and the state after it.

    A denied request leaves the state as it is. ``request`` is the point's input document, or an instance of its
    request class. Raises Malformed where it is neither, and for a fragment that does not begin as one.
    """
    declared = POINTS.get(point) or OWN_POINTS.get(point)
    if declared is None:
        return policy_error(point[:80], "unknown_point", f"enforcement point rule {point[:80]} does not exist"), state
    typed = declared.schema.decode(request, point) if declared.linux else request
    if isinstance(typed, LoadFragment):
        from parma_policy.reader.fragment import fragment_package

        fragment_package(typed.rego)
    view = View(policy, state, platform)
    decision, after = _decide(view, declared, typed)
    if policy.framework_problem and decision.kind is Kind.DENIED:
        decision = _with_version_problem(view, decision)
    if not decision.allowed and policy.extensions.permissive:
        from parma_policy.framework import permissive

        return permissive.override(view, decision, typed)
    return decision, after


def _decide(view: View, point: EnforcementPoint, request: object) -> tuple[Decision, State]:
    """The answer of a policy's own rule, or what its age says where it has none."""
    policy, state, name = view.policy, view.state, point.name
    if policy.api_problem or policy.api_version is None:
        return policy_error(name, "api_version", policy.api_problem), state
    if (
        name in policy.rules
        or name in OWN_POINTS
        or (point.default is Default.FRAMEWORK and policy.api_version < point.introduced)
    ):
        return HANDLERS[name](view, request) if point.linux else (denied(name, _not_linux(point)), state)
    if policy.api_version >= point.introduced:
        change = f'the policy would have to say "{name} := data.framework.{name}"'
        return policy_error(name, "no_rule", f"rule for {name} is missing from policy", change), state
    if point.default is Default.ALLOW:
        return allowed(name), state
    return denied(name, _old_policy(point), *_also(view, point, request)), state


_READ_LISTS: Final = ("mount_overlay", "exec_external", "load_fragment")
"""Points that read the policy's lists as its framework version says, rather than what an earlier request chose."""


def _with_version_problem(view: View, decision: Decision) -> Decision:
    """Every denial says that the policy's lists do not count. A policy that gives two versions has said nothing usable
    where the version matters."""
    problem = unusable(view)
    if decision.reasons[:1] == tuple(problem):
        contradictory = view.policy.framework_contradiction and decision.point in _READ_LISTS
        return replace(decision, kind=Kind.POLICY_ERROR) if contradictory else decision
    return replace(decision, reasons=(*decision.reasons, *problem))


def _not_linux(point: EnforcementPoint) -> Reason:
    text = f"{point.name} does not exist on Linux"
    return Reason("not_linux", text, text)


def _old_policy(point: EnforcementPoint) -> Reason:
    text = "the policy is older than this enforcement point"
    change = f"api_version would have to be {point.introduced} or newer"
    return Reason("old_policy", text, text, change=change, where="api_version")


def _also(view: View, point: EnforcementPoint, request: object) -> tuple[Reason, ...]:
    """What the framework would have had against the request; kept for its topics."""
    return HANDLERS[point.name](view, request)[0].reasons if point.linux else ()
