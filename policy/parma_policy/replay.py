# SPDX-License-Identifier: Apache-2.0
"""Replays recorded conversations with an enforcer and compares the answers.

A recording is an object with ``policy_rego``, ``default_mounts``, ``privileged_mounts``, ``os`` and ``steps``, each a
``call``, its ``input`` and what to ``expect``. Steps are calls of enforcement points, and ``transaction_begin``,
``transaction_commit``, ``transaction_rollback``, ``extend_default_mounts`` and ``construct``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_policy.framework import Decision, Platform
from parma_policy.loaded import LoadedPolicy, load_policy
from parma_policy.model import CAPABILITY_SETS, MountRule
from parma_policy.patterns import PatternCache
from parma_policy.reader import has_own_rules
from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_policy.rego import Engine

Recording = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One answer that is not the recorded one. ``fail_open``: allowed although recorded as denied."""

    step: int
    call: str
    what: str
    expected: object
    actual: object
    fail_open: bool = False

    def __str__(self) -> str:
        return f"step {self.step} {self.call}: {self.what} is {self.actual!r}, recorded {self.expected!r}"


class RefusedPolicyError(Exception):
    """The recording's policy is not loaded. ``cause`` is why; ``own_rules``: perhaps for want of an engine."""

    def __init__(self, cause: Malformed, *, own_rules: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.own_rules = own_rules


def platform_of(recording: Recording) -> Platform:
    """The platform that the recording was made with."""
    return Platform(
        tuple(_mount(mount) for mount in recording.get("default_mounts") or ()),
        tuple(_mount(mount) for mount in recording.get("privileged_mounts") or ()),
    )


def _mount(mount: Mapping[str, Any]) -> MountRule:
    source = mount["source"]
    prefix, separator, rest = source.partition("://")
    tail = PatternCache().make(rest, "re2") if separator and prefix in ("sandbox", "hugepages") else None
    return MountRule(mount["destination"], source, mount["type"], tuple(mount["options"] or ()), tail)


def replay(recording: Recording, engine: Engine | None = None, *, parity: bool = True) -> list[Difference]:
    """The differences between our answers and the recorded ones; none after the first wrong ``allowed``.

    ``engine`` is for policies with rules of their own. Raises RefusedPolicyError where we refuse the policy and the
    recording does not.
    """
    steps: Sequence[Mapping[str, Any]] = recording["steps"]
    platform = platform_of(recording)
    data = recording["policy_rego"].encode()
    try:
        policy = load_policy(data, engine, parity=parity, platform=platform)
    except Malformed as error:
        if [step["call"] for step in steps] == ["construct"]:
            return []
        raise RefusedPolicyError(error, own_rules=bool(data.strip()) and has_own_rules(data, parity=parity)) from error
    state = saved = policy.initial_state()
    differences: list[Difference] = []
    for number, step in enumerate(steps):
        call, given = step["call"], step["input"]
        match call:
            case "transaction_begin":
                saved = state
            case "transaction_rollback":
                state = saved
            case "transaction_commit":
                pass
            case "construct":
                differences.append(Difference(number, call, "accepted", expected=False, actual=True, fail_open=True))
            case "extend_default_mounts":
                more = tuple(_mount(mount) for mount in given["mounts"])
                platform = replace(platform, default_mounts=platform.default_mounts + more)
                policy = policy.with_platform(platform)
            case _:
                found, state = _step(policy, state, number, step)
                differences += found
                if any(difference.what == "allowed" for difference in found):
                    break
    return differences


def _step(policy: LoadedPolicy, state: Any, number: int, step: Mapping[str, Any]) -> tuple[list[Difference], Any]:
    try:
        decision, after = policy.decide(state, step["call"], step["input"])
    except Malformed as error:
        return list(_compare_malformed(number, step, error)), state
    return list(_compare(number, step, decision)), after


def _compare_malformed(number: int, step: Mapping[str, Any], error: Malformed) -> Iterator[Difference]:
    expect = step["expect"]
    if expect["allowed"]:
        yield Difference(number, step["call"], "allowed", expected=True, actual=f"malformed: {error}")
    elif expect.get("error_kind") != "error":
        yield Difference(number, step["call"], "kind", expect.get("error_kind"), f"malformed: {error}")


def _compare(number: int, step: Mapping[str, Any], decision: Decision) -> Iterator[Difference]:
    expect, call = step["expect"], step["call"]
    if decision.allowed != expect["allowed"]:
        actual = decision.allowed or decision.message()
        yield Difference(number, call, "allowed", expect["allowed"], actual, fail_open=decision.allowed)
    elif decision.allowed:
        yield from _compare_results(number, step, decision)
    else:
        if decision.kind.value != expect.get("error_kind"):
            yield Difference(number, call, "kind", expect.get("error_kind"), f"{decision.kind}: {decision.message()}")
        recorded = {_topic(text) for text in expect.get("reasons") or ()}
        topics = {_topic(text) for text in decision.topics()}
        if recorded and not recorded & topics:
            yield Difference(number, call, "reasons", sorted(recorded), sorted(topics))


def _topic(text: str) -> str:
    return text.partition(":")[0]


def _compare_results(number: int, step: Mapping[str, Any], decision: Decision) -> Iterator[Difference]:
    expect, given = step["expect"], step["input"]
    env = given.get("envList") or () if decision.env_list is None else decision.env_list
    actual: dict[str, object] = {
        "env": sorted(set(env)),
        "allow_stdio_access": decision.allow_stdio_access,
        "providers": _sorted(decision.providers_to_keep, given.get("providers")),
        "allowed_ledgers": _sorted(decision.allowed_ledgers, ()),
    }
    if "caps" in expect:
        caps = decision.caps
        actual["caps"] = {
            name: sorted(set(getattr(caps, name) if caps else given["capabilities"][name] or ()))
            for name in CAPABILITY_SETS
        }
    for name, value in actual.items():
        if name in expect and (expect[name] or value) and expect[name] != value:
            yield Difference(number, step["call"], name, expect[name], value)


def _sorted(values: Sequence[str] | None, otherwise: Sequence[str] | None) -> list[str]:
    return sorted(set((otherwise or ()) if values is None else values))


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a folder of recordings, by name."""

    passed: tuple[str, ...]
    failed: Mapping[str, Sequence[Difference]]
    refused: Mapping[str, str]
    """Policies that we do not load although the reference does, and why."""
    skipped: Mapping[str, str]
    """Not compared, and why."""

    def fail_open(self) -> list[str]:
        """Recordings in which we allow what was denied."""
        return [name for name, found in self.failed.items() if any(difference.fail_open for difference in found)]


def replay_folder(
    directory: Path, engine: Engine | None = None, *, parity: bool = True, without_engine: str = ""
) -> Score:
    """Replays every recording of a folder. Raises Malformed for a file that is none.

    ``without_engine``: why there is none. Policies with rules of their own are then skipped, otherwise refused.
    """
    passed: list[str] = []
    failed: dict[str, Sequence[Difference]] = {}
    refused: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for path in sorted(directory.glob("*.json")):
        recording = _read(path)
        if "steps" not in recording:
            continue
        name = str(recording["name"])
        if recording.get("os") != "linux":
            skipped[name] = f"recorded in a guest of {recording.get('os')}"
            continue
        try:
            differences = replay(recording, engine, parity=parity)
        except RefusedPolicyError as error:
            if without_engine and error.own_rules:
                skipped[name] = f"rules of its own, and no engine: {without_engine}"
            else:
                refused[name] = str(error)
            continue
        if differences:
            failed[name] = differences
        else:
            passed.append(name)
    return Score(tuple(passed), failed, refused, skipped)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Malformed(f"{path.name} is no recorded conversation")
    return value


def main(directory: Path, engine: Engine | None = None, *, without_engine: str = "") -> tuple[int, int]:
    """Replays a folder, prints what differs or was skipped, and returns the numbers of passed and failed recordings.

    A policy that is refused has failed, but where it needs an engine and there is none.
    """
    score = replay_folder(directory, engine, without_engine=without_engine)
    for name, differences in score.failed.items():
        print(f"FAILED {name}: {differences[0]}")
    for name, reason in score.refused.items():
        print(f"FAILED {name}: refused when loaded: {reason}")
    for reason, count in Counter(score.skipped.values()).items():
        print(f"{count} skipped: {reason}")
    print(f"{len(score.fail_open())} allowed though recorded as denied")
    return len(score.passed), len(score.failed) + len(score.refused)
