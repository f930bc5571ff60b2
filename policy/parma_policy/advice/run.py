# SPDX-License-Identifier: Apache-2.0
"""What to change in a policy so that a denied request is allowed, and what that would open."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from parma_policy.advice.denial import Denial, mount_destination, read, redacted
from parma_policy.advice.edits import Place, edited
from parma_policy.framework import GUEST, Decision, State, decide
from parma_policy.framework.codes import CODES
from parma_policy.framework.decision import Reason, denied
from parma_policy.framework.state import Overlay, Started
from parma_policy.lint import Finding, Severity, lint
from parma_policy.lint.finding import Sheet
from parma_policy.model import Policy
from parma_policy.reader import load
from parma_policy.reader.policy import decode
from parma_policy.reader.syntax import parse
from parma_wire.errors import Malformed

_MAX_STEPS: Final = 20
_STANDARD_SETS: Final = ("[privileged]", "[unprivileged]")


@dataclass(frozen=True, slots=True)
class Advice:
    """What a denial means for a policy."""

    point: str
    message: str
    codes: tuple[str, ...]
    """The rules that fail, the first being the one that the denial is about. Empty: nothing fails any more."""
    where: str = ""
    line: int = 0
    column: int = 0
    text: str | None = None
    """The policy's text with the suggested change; None where there is none."""
    diff: str = ""
    findings: tuple[Finding, ...] = ()
    """What ``lint`` says about the changed policy that it did not say before."""
    complete: bool = False
    """Whether the changed policy is known to allow the request. Only a whole request can tell."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "point": self.point,
            "message": self.message,
            "codes": [
                {"code": code, "meaning": CODES[code].meaning, "remedy": CODES[code].remedy} for code in self.codes
            ],
            "where": self.where,
            "line": self.line,
            "column": self.column,
            "diff": self.diff,
            "policy_sha256": hashlib.sha256(self.text.encode()).hexdigest() if self.text else "",
            "findings": [str(finding) for finding in self.findings],
            "complete": self.complete,
        }


def advise(policy: bytes, text: str) -> Advice:
    """The advice for a denial, a line of text or a recorded request. Raises Malformed where it is none."""
    loaded, denial = load(policy), read(text)
    if denial.request is not None:
        return _about_request(policy, loaded, denial)
    if denial.code:
        reason = Reason(denial.code, "", "", where=denial.where)
        return _advice(policy, decode(policy), denial, denied(denial.point, reason), denial.values)
    codes = tuple(dict.fromkeys(code for topic in denial.topics for code in _codes_of(topic, denial.point)))
    if not codes:
        # Not the same as a request that nothing denies: without it nobody knows.
        said = f"its reasons are not the framework's: {denial.message[:400]}" if denial.topics else "it has no reason"
        raise Malformed(
            f"the denial has no request, and {said}",
            hint="the enforcer leaves out what does not fit: explain the request itself, as 'parma record' prints it",
        )
    return Advice(denial.point, denial.message, codes)


def _codes_of(topic: str, point: str) -> list[str]:
    """The codes that have the reference enforcer's topic, those of the point if it is known."""
    head = topic.partition(":")[0]
    found = [code for code, entry in CODES.items() if head in entry.topic.split("; ")]
    return [code for code in found if not point or point in CODES[code].points] or found


# -- whole requests ----------------------------------------------------------------------------------------------


def _about_request(policy: bytes, loaded: Policy, denial: Denial) -> Advice:
    """Changes the policy until it allows the request, one rule at a time."""
    request = _completed(denial.point, denial.request or {})
    first = decision = _ask(loaded, denial.point, request)
    text, steps = decode(policy), 0
    while not decision.allowed and steps < _MAX_STEPS:
        reason = decision.reasons[0]
        values = _values(request, reason)
        place = Place.of(text, parse(text), load(text.encode()), denial.point, reason.where)
        changed = _loadable(edited(place, reason.code, values))
        if changed is None or changed == text:
            break
        text, steps = changed, steps + 1
        decision = _ask(load(text.encode()), denial.point, request)
    return _advice(policy, text, denial, first, {}, complete=decision.allowed)


def _completed(point: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request as our framework takes it, with what the reference enforcer's denials abbreviate spelled out."""
    from parma_policy.points import ASKED

    declared = ASKED[point].schema
    known = {*declared.keys, *declared.constants}
    completed = {key: value for key, value in request.items() if key in known}
    for name, value in (completed.get("capabilities") or {}).items():
        if isinstance(value, str) and value in _STANDARD_SETS:
            sets = GUEST.privileged if value == "[privileged]" else GUEST.unprivileged
            completed["capabilities"] = {**completed["capabilities"], name: list(getattr(sets, name))}
    return completed


def _ask(policy: Policy, point: str, request: Mapping[str, Any]) -> Decision:
    """Asks in the state that the request needs: nobody knows here what was mounted and started."""
    return decide(policy, _state(policy, request), point, request)[0]


def _state(policy: Policy, request: Mapping[str, Any]) -> State:
    identity = request.get("containerID")
    if not isinstance(identity, str):
        return State.initial()
    everything = State.initial()
    candidates = policy.containers.containers
    overlay = Overlay(identity, ())
    started = {} if "sandboxDir" in request else {identity: Started(privileged=False, allow_stdio_access=True)}
    return State(
        devices=everything.devices,
        rw_devices=everything.rw_devices,
        overlays={f"/run/gcs/c/{identity}/rootfs": overlay},
        matches={identity: candidates},
        started=started,
        plan9_mounts=everything.plan9_mounts,
        scratch_mounts=everything.scratch_mounts,
        fragments=(),
        provided=everything.provided,
    )


def _values(request: Mapping[str, Any], reason: Reason) -> dict[str, Any]:
    """What the request asks for, by the names that edits use."""
    values: dict[str, Any] = {
        "command": request.get("argList"),
        "working_dir": request.get("workingDir"),
        "umask": request.get("umask"),
        "seccomp": request.get("seccompProfileSHA256"),
        "capabilities": request.get("capabilities"),
        "user": request.get("user"),
        "signal": request.get("signal"),
        "files": request.get("files"),
        "port": request.get("port"),
    }
    values = {name: value for name, value in values.items() if value is not None}
    listed = reason.topic.partition(": ")[2].split(",")
    if reason.code == "env":
        given = [variable for variable in request.get("envList") or () if not redacted(variable)]
        values["env"] = [variable for variable in given if variable.partition("=")[0] in listed]
    elif reason.code == "mounts":
        refused = [
            mount for mount in request.get("mounts") or () if mount["destination"] == mount_destination(reason.text)
        ]
        values |= {"mount": refused[0]} if refused else {}
    elif reason.code == "group":
        groups = [group for group in request.get("groups") or () if reason.actual.partition(" ")[0] == group["id"]]
        values |= {"group": groups[0]} if groups else {}
    elif reason.code == "provider":
        values["provider"] = next((name for name in request["providers"] if f'"{name}"' in reason.text), "")
    return values


def _loadable(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        load(text.encode())
    except Malformed:
        return None
    return text


# -- the result --------------------------------------------------------------------------------------------------


def _advice(
    policy: bytes,
    text: str,
    denial: Denial,
    decision: Decision,
    values: Mapping[str, Any],
    *,
    complete: bool = False,
) -> Advice:
    """Puts together what is known; with ``values`` the change that they allow is made first."""
    before = decode(policy)
    codes = tuple(dict.fromkeys(reason.code for reason in decision.reasons))
    where = decision.reasons[0].where if decision.reasons else ""
    sheet = Sheet(parse(before), load(policy))
    if codes and text == before:
        place = Place(before, sheet, denial.point, where)
        text = _loadable(edited(place, codes[0], values)) or before
    at = sheet.node(where).error("") if where else None
    return Advice(
        denial.point,
        denial.message or decision.message(),
        codes,
        where,
        at.line if at else 0,
        at.column if at else 0,
        text if text != before else None,
        _diff(before, text),
        _new_findings(policy, text) if text != before else (),
        complete,
    )


def _diff(before: str, after: str) -> str:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, "policy", "policy, changed", n=1))


def _new_findings(before: bytes, after: str) -> tuple[Finding, ...]:
    known = {(finding.rule, finding.path) for finding in lint(before)}
    found = lint(after.encode())
    return tuple(f for f in found if f.severity >= Severity.WARNING and (f.rule, f.path) not in known)
