# SPDX-License-Identifier: Apache-2.0
"""What one policy allows that another does not, found by asking both.

Requests are made from the data of both policies: every container, every rule of it, with the values of its own and of
its counterparts in the other policy, and near misses of expressions. Both policies decide them. A difference that is
found is certain and comes with the request that shows it. That none is found proves nothing where expressions differ:
such places are listed as *undecided*.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from parma_policy import witness
from parma_policy.framework import Decision
from parma_policy.model import Container, FragmentRule, Policy
from parma_policy.samples import near_misses
from parma_policy.session import Session
from parma_policy.witness import Question
from parma_wire.errors import Malformed

_FLAG_POINTS: Final = ("get_properties", "dump_stacks", "runtime_logging", "host_network", "configure_network")
_MAX_NEAR: Final = 400
_FIELDS: Final = (
    *("command", "working_dir", "user", "capabilities", "seccomp_profile_sha256", "no_new_privileges"),
    *("allow_elevated", "allow_stdio_access", "mounts", "env_rules", "exec_processes", "signals", "attestation"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A request that one policy allows and the other does not, or that they answer differently."""

    only: str
    """Which policy allows it: ``a`` or ``b``; empty where both do, with other results."""
    about: str
    """Whose request it is, like ``containers[1].env_rules[2]`` of the policy that allows it."""
    question: Question
    why: str
    """The other policy's reason, or what differs in the results."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome. ``undecided``: places that differ in text, where no request was found that shows it."""

    differences: tuple[Difference, ...]
    undecided: tuple[str, ...]
    requests: int
    same: bool
    """Whether the policies are equal but for names and order: then there is nothing to find."""


@dataclass(slots=True)
class _Comparing:
    a: Policy
    b: Policy
    found: list[Difference] = field(default_factory=list)
    asked: int = 0

    def ask(self, about: str, questions: Sequence[Question]) -> Difference | None:
        """Asks both; the first question that they answer differently is the difference."""
        one, other = Session.of(self.a), Session.of(self.b)
        for question in questions:
            self.asked += 1
            try:
                (mine, one), (theirs, other) = (
                    one.ask(question.call, question.input),
                    other.ask(question.call, question.input),
                )
            except Malformed:
                return None  # a near miss of a path with NUL in it, or the like: no question to a policy
            if mine.allowed != theirs.allowed:
                only, denial = ("a", theirs) if mine.allowed else ("b", mine)
                return self.keep(Difference(only, about, question, _objections(denial)))
            if not mine.allowed:
                return None
            results = _results(mine, theirs)
            if results:
                return self.keep(Difference("", about, question, results))
        return None

    def keep(self, difference: Difference) -> Difference:
        key = (difference.only, difference.question.call, difference.why)
        if all(key != (known.only, known.question.call, known.why) for known in self.found):
            self.found.append(difference)
        return difference


def compare(a: Policy, b: Policy) -> Comparison:
    """Compares two policies that load."""
    comparing = _Comparing(a, b)
    _flags(comparing)
    undecided = [text for mine, other in ((a, b), (b, a)) for text in _containers(comparing, mine, other)]
    _external(comparing)
    undecided += _fragments(comparing)
    return Comparison(
        tuple(comparing.found), tuple(dict.fromkeys(undecided)), comparing.asked, _meaning(a) == _meaning(b)
    )


def _meaning(policy: Policy) -> tuple[object, ...]:
    """All of a policy that decisions depend on, without the names and the order of containers."""
    rest = (getattr(policy, item.name) for item in fields(policy) if item.name not in ("sha256", "containers"))
    return (Counter(map(_plain, policy.containers.containers)), *rest)


def _plain(container: Container) -> Container:
    return replace(container, id="", name="", place="")


def _objections(denial: Decision) -> str:
    more = [reason.code for reason in denial.reasons[1:]]
    return denial.message() + (f" (also: {', '.join(more)})" if more else "")


def _results(mine: Decision, theirs: Decision) -> str:
    for name in ("env_list", "caps", "allow_stdio_access", "attestation", "providers_to_keep"):
        one, other = getattr(mine, name), getattr(theirs, name)
        if one != other:
            return f"{name} is {_shown(one)} in A and {_shown(other)} in B"
    return ""


def _shown(value: object) -> str:
    plain = sorted(value) if isinstance(value, frozenset) else value
    text = json.dumps(plain, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _flags(comparing: _Comparing) -> None:
    for name in _FLAG_POINTS:
        comparing.ask(name, [Question(name, {})])
    for port in sorted(comparing.a.forward_ports ^ comparing.b.forward_ports):
        comparing.ask("forward_ports", [Question("forward_port", {"port": port})])
    scratch = {"target": "/run/gcs/c/s", "encrypted": False}
    comparing.ask("allow_unencrypted_scratch", [Question("scratch_mount", scratch)])
    for policy in (comparing.a, comparing.b):
        for provider in policy.allowed_log_providers or ():
            comparing.ask("allowed_log_providers", [Question("log_provider", {"providers": [provider]})])


# -- containers --------------------------------------------------------------------------------------------------


def _containers(comparing: _Comparing, mine: Policy, other: Policy) -> Iterator[str]:
    """Asks about every container of ``mine``; yields what stays undecided."""
    for container in mine.containers.containers:
        preparation = witness.preparation(container.layers)
        created = [*preparation, Question("create_container", witness.creation(container))]
        if comparing.ask(container.place, created) is not None:
            continue  # the other policy does not have it at all, or answers it otherwise: details would only repeat it
        before = len(comparing.found)
        counterparts = other.containers.by_layers.get(container.layers, ())
        closest = _closest(container, counterparts)
        for about, questions in _variants(container, [container, *counterparts]):
            comparing.ask(f"{container.place}.{about}", [*preparation, *questions])
        if closest is not None and len(comparing.found) == before:
            differing = [name for name in _FIELDS if getattr(container, name) != getattr(closest, name)]
            for name in differing:
                yield (
                    f"{container.place}.{name} and {closest.place}.{name} are written differently, but no request was "
                    "found that tells them apart"
                )


def _closest(container: Container, others: Iterable[Container]) -> Container | None:
    def distance(other: Container) -> int:
        return sum(getattr(container, name) != getattr(other, name) for name in _FIELDS)

    return min(others, key=distance, default=None)


def _variants(container: Container, family: Sequence[Container]) -> Iterator[tuple[str, list[Question]]]:
    """Ways to create the container, commands and signals; ``family`` lends its values."""
    base = witness.creation(container)
    for about, request in witness.alternatives(container):
        yield about, [Question("create_container", request)]
    for about, request in _borrowed(base, family):
        yield about, [Question("create_container", request)]
    for text in _near_variables(family):
        name = text.partition("=")[0]
        others = [other for other in base["envList"] if other.partition("=")[0] != name]
        yield "env_rules", [Question("create_container", {**base, "envList": [*others, text]})]
    start = Question("create_container", base)
    for number, process in enumerate(container.exec_processes):
        run = Question("exec_in_container", witness.process(container, process.command))
        yield f"exec_processes[{number}]", [start, run]
        for signal in sorted(process.signals):
            question = witness.signal_to_exec(process.command, signal)
            yield f"exec_processes[{number}].signals", [start, question]
    for signal in sorted(container.signals):
        yield "signals", [start, witness.signal_to_init(signal)]


def _borrowed(base: Mapping[str, Any], family: Sequence[Container]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The base request with one value of a relative: what a widened container allows beyond its counterpart."""
    for relative in family:
        lent = witness.creation(relative)
        for key, name in _MEMBERS.items():
            if lent[key] != base[key]:
                yield name, {**base, key: lent[key]}
        for number, rule in enumerate(relative.mounts):
            asked = witness.mount(rule)
            yield f"mounts[{number}]", {**base, "mounts": [asked]}
            for near in near_misses(asked["source"]):
                yield "mounts", {**base, "mounts": [{**asked, "source": near}]}
        for option in (False, True):
            yield "user.user_idname", {**base, "user": {"id": "0" if option else "65000", "name": "nobody"}}


_MEMBERS: Final = {
    "argList": "command",
    "workingDir": "working_dir",
    "user": "user.user_idname",
    "groups": "user.group_idnames",
    "umask": "user.umask",
    "capabilities": "capabilities",
    "seccompProfileSHA256": "seccomp_profile_sha256",
    "envList": "env_rules",
}


def _near_variables(family: Sequence[Container]) -> list[str]:
    """What the rules of the family accept, and what is near to that."""
    found: dict[str, None] = {}
    rules = dict.fromkeys(rule for relative in family for rule in relative.env_rules.rules)
    for rule in rules:
        accepted = witness.variables(rule)
        found.update(dict.fromkeys(accepted))
        if not rule.literal:
            found.update(dict.fromkeys(near for text in accepted[:2] for near in near_misses(text)))
    return list(found)[:_MAX_NEAR]


# -- the rest ----------------------------------------------------------------------------------------------------


def _external(comparing: _Comparing) -> None:
    for policy in (comparing.a, comparing.b):
        for process in policy.external_processes:
            base = {
                "argList": list(process.command),
                "envList": witness.environment(process.env_rules),
                "workingDir": process.working_dir,
            }
            comparing.ask(process.place, [Question("exec_external", base)])
            for rule in process.env_rules.rules:
                for text in witness.variables(rule):
                    asked = {**base, "envList": [*base["envList"], text]}
                    comparing.ask(f"{process.place}.env_rules", [Question("exec_external", asked)])


def _fragments(comparing: _Comparing) -> Iterator[str]:
    """Offers an empty fragment for each rule; what the fragments may include is compared as it is written."""
    for policy in (comparing.a, comparing.b):
        for number, rule in enumerate(policy.fragments):
            comparing.ask(f"fragments[{number}]", [_offer(rule)])
    for number, rule in enumerate(comparing.b.fragments):
        known = [old for old in comparing.a.fragments if (old.issuer, old.feed) == (rule.issuer, rule.feed)]
        if known and rule not in known:
            yield f"fragments[{number}]: what it may include, its parameters, minimum_svn or receipts differ"
    if comparing.a.platform_rules != comparing.b.platform_rules:
        yield "platform_rules differ: compare containers with them by hand"
    if comparing.a.transparency_trust_lists != comparing.b.transparency_trust_lists:
        yield "transparency_trust_lists differ"


def _offer(rule: FragmentRule) -> Question:
    svn = json.dumps(str(rule.minimum_svn))
    text = f'package offered\nsvn := {svn}\nframework_version := "0.5.0"\n'
    receipts = [{"issuer": name, "ttl_subjects": [name.removeprefix("TTL:")]} for name in rule.required_receipts]
    asked = {"issuer": rule.issuer, "feed": rule.feed, "header_svn": None, "rego": text, "receipts": receipts}
    return Question("load_fragment", asked)
