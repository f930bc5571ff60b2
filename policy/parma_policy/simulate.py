# SPDX-License-Identifier: Apache-2.0
"""Decides a conversation as the guest would, step by step, and compares the answers with those expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from parma_policy.conversation import Conversation, Step, mount_rule
from parma_policy.framework import Decision
from parma_policy.loaded import LoadedPolicy
from parma_policy.model import CAPABILITY_SETS
from parma_policy.session import Session
from parma_wire.errors import Malformed, ParmaError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step. Without a decision: it was malformed, or a transaction's call."""

    step: Step
    decision: Decision | None = None
    malformed: str = ""
    differences: tuple[str, ...] = ()
    """How the answer is not the expected one; empty where it is, or nothing is expected."""

    @property
    def allowed(self) -> bool:
        """Whether the request was allowed; calls of transactions always are."""
        return not self.malformed and (self.decision is None or self.decision.allowed)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        document: dict[str, Any] = {"step": self.step.line, "call": self.step.call, "allowed": self.allowed}
        if self.malformed:
            document["malformed"] = self.malformed
        if self.decision is not None:
            document |= decision_json(self.decision)
        return document | ({"differences": list(self.differences)} if self.differences else {})


def decision_json(decision: Decision) -> dict[str, Any]:
    """A decision for programs."""
    document: dict[str, Any] = {"allowed": decision.allowed, "kind": decision.kind.value}
    if decision.overridden:
        document["permissive"] = True
    if decision.reasons:
        document["message"] = decision.message()
        document["reasons"] = [
            {
                "code": reason.code,
                "text": reason.text,
                "expected": reason.expected,
                "actual": reason.actual,
                "change": reason.change,
                "where": reason.where,
                "topic": reason.topic,
            }
            for reason in decision.reasons
        ]
    if decision.env_list is not None:
        document["env"] = list(decision.env_list)
    if decision.caps is not None:
        document["caps"] = {name: list(getattr(decision.caps, name)) for name in CAPABILITY_SETS}
    if decision.allow_stdio_access:
        document["allow_stdio_access"] = True
    return document


def simulate(policy: LoadedPolicy, conversation: Conversation) -> Iterator[Outcome]:
    """Yields the outcome of each step. A step that is refused changes nothing; the conversation goes on.

    ``policy`` has to be loaded for the conversation's platform.
    """
    session = Session.with_loaded(policy, conversation.platform)
    for step in conversation.steps:
        outcome, session = _take(session, step)
        yield outcome


def _take(session: Session, step: Step) -> tuple[Outcome, Session]:
    decision: Decision | None = None
    try:
        match step.call:
            case "transaction_begin":
                session = session.begin()
            case "transaction_commit":
                session = session.commit()
            case "transaction_rollback":
                session = session.roll_back()
            case "extend_default_mounts":
                session = _more_mounts(session, step.input.get("mounts"))
            case _:
                decision, session = session.ask(step.call, step.input)
    except ParmaError as error:
        return Outcome(step, malformed=str(error), differences=tuple(_refused(step))), session
    return Outcome(step, decision, differences=tuple(_differences(step, decision)) if decision else ()), session


def _more_mounts(session: Session, mounts: object) -> Session:
    if not isinstance(mounts, list):
        raise Malformed("mounts is no list")
    rules = (*session.platform.default_mounts, *map(mount_rule, mounts))
    return session.on(replace(session.platform, default_mounts=rules))


def _refused(step: Step) -> Iterator[str]:
    """How a malformed request differs from what was expected of it."""
    if step.expect and step.expect.get("allowed"):
        yield "malformed, but expected to be allowed"
    elif step.expect and step.expect.get("error_kind") not in (None, "error"):
        yield f"malformed, but expected to be refused as {step.expect['error_kind']}"


def _differences(step: Step, decision: Decision) -> Iterator[str]:
    expect = step.expect or {}
    if "allowed" in expect and expect["allowed"] != decision.allowed:
        yield "allowed, but expected to be denied" if decision.allowed else "denied, but expected to be allowed"
        return
    codes = [reason.code for reason in decision.reasons]
    if expect.get("code") and expect["code"] not in codes[:1]:
        yield f"the first reason is {codes[0] if codes else 'none'}, but expected to be {expect['code']}"
    if not decision.allowed:
        yield from _denial_differences(expect, decision)
        return
    for name, actual in _results(step.input, decision).items():
        wanted = expect.get(name)
        if wanted is not None and wanted != actual:
            yield f"{name} is {actual}, but expected to be {wanted}"


def _denial_differences(expect: Mapping[str, Any], decision: Decision) -> Iterator[str]:
    if expect.get("error_kind") not in (None, decision.kind.value):
        yield f"refused as {decision.kind.value}, but expected to be refused as {expect['error_kind']}"
    wanted = {str(topic).partition(":")[0] for topic in expect.get("reasons") or ()}
    topics = {topic.partition(":")[0] for topic in decision.topics()}
    if wanted and not wanted & topics:
        yield f"the reasons are {sorted(topics)}, but expected to be among {sorted(wanted)}"


def _results(given: Mapping[str, Any], decision: Decision) -> dict[str, object]:
    env = decision.env_list if decision.env_list is not None else given.get("envList") or ()
    caps, asked = decision.caps, given.get("capabilities") or {}
    return {
        "env": sorted(set(env)),
        "caps": {name: sorted(set(getattr(caps, name) if caps else asked.get(name) or ())) for name in CAPABILITY_SETS},
        "allow_stdio_access": decision.allow_stdio_access,
    }
