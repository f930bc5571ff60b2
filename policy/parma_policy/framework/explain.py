# SPDX-License-Identifier: Apache-2.0
"""Reasons for denials: one function for each rule, saying what was expected and what came.

Values of environment variables never appear, only names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from parma_policy.framework.decision import Reason
from parma_policy.framework.matching import ambiguous_variables
from parma_policy.framework.view import View
from parma_policy.model import CAPABILITY_SETS, Capabilities, Container, EnvRule, EnvRules, IdName
from parma_policy.requests import CreateContainer, ExecInContainer, Mount, UserName

_MAX_SHOWN = 300


def shown(value: object) -> str:
    """A value on one line of printable ASCII, shortened."""
    text = json.dumps(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def names(variables: Iterable[str]) -> list[str]:
    """Names of environment variables."""
    return list(dict.fromkeys(variable.partition("=")[0] for variable in variables))


def command(expected: Sequence[str], given: Sequence[str]) -> Reason:
    """Another command line."""
    return Reason(
        "command",
        "command is not the one in the policy",
        "invalid command",
        shown(list(expected)),
        shown(list(given)),
        f'the container\'s "command" would have to be {shown(list(given))}',
    )


def exec_command(container: Container, given: Sequence[str]) -> Reason:
    """A command that may not be run in the container."""
    listed = [list(process.command) for process in container.exec_processes]
    expected = "one of " + shown(listed) if listed else "none: the policy lists no exec_processes"
    return Reason(
        "command",
        "command is not one that the policy lets run in this container",
        "invalid command",
        expected,
        shown(list(given)),
        f'the container\'s "exec_processes" would have to list {shown(list(given))}',
    )


def working_dir(expected: str, given: str) -> Reason:
    """Another working directory."""
    return Reason(
        "working_dir",
        "working directory is not the one in the policy",
        "invalid working directory",
        shown(expected),
        shown(given),
        f'"working_dir" would have to be {shown(given)}',
    )


def no_new_privileges() -> Reason:
    """no_new_privileges is off although the policy demands it."""
    return Reason(
        "no_new_privileges",
        "no_new_privileges is not set",
        "invalid noNewPrivileges",
        "true",
        "false",
        'the container\'s "no_new_privileges" would have to be false',
    )


def privileged() -> Reason:
    """A privileged container where the policy does not allow one."""
    return Reason(
        "privileged",
        "privileged is not allowed for this container",
        "privileged escalation not allowed",
        "false",
        "true",
        'the container\'s "allow_elevated" would have to be true',
    )


def devices(paths: Sequence[str]) -> Reason:
    """Host devices, which nobody may have."""
    return Reason("devices", "host devices are not supported", "devices not supported", "none", shown(list(paths)))


def seccomp(expected: str, given: str) -> Reason:
    """Another seccomp profile."""
    return Reason(
        "seccomp",
        "seccomp profile is not the one in the policy",
        "invalid seccomp",
        f"SHA-256 {expected}" if expected else "no profile",
        f"SHA-256 {given[:64]}" if given else "no profile",
        f'the container\'s "seccomp_profile_sha256" would have to be {shown(given)}',
    )


def _id_name(rule: IdName) -> str:
    return "any" if rule.strategy == "any" else f"{rule.strategy} {shown(rule.pattern)}"


def _given_id(given: UserName) -> str:
    return f"{given.id} {shown(given.name)}" if given.name else given.id


def user(container: Container, request: CreateContainer | ExecInContainer) -> Reason:
    """User, group or umask, the first that differs."""
    rule, topic = container.user, "invalid user"
    if not rule.user.matches(request.user.id, request.user.name):
        given = _given_id(request.user)
        change = f'"user.user_idname" would have to accept {given}'
        return Reason("user", "user is not the one in the policy", topic, _id_name(rule.user), given, change)
    for group in request.groups:
        if not any(accepted.matches(group.id, group.name) for accepted in rule.groups):
            given = _given_id(group)
            expected = " or ".join(map(_id_name, rule.groups)) or "none"
            change = f'"user.group_idnames" would have to accept {given}'
            return Reason("group", "group is not one of those in the policy", topic, expected, given, change)
    change = f'"user.umask" would have to be {shown(request.umask)}'
    return Reason("umask", "umask is not the one in the policy", topic, rule.umask, shown(request.umask), change)


def mounts(container: Container, refused: Sequence[Mount]) -> Reason:
    """Mounts that the container may not have; about the first."""
    first = refused[0]
    topic = "invalid mount list: " + ",".join(mount.destination for mount in refused)
    same = [rule for rule in container.mounts if rule.destination == first.destination]
    if same:
        expected = f"{same[0].type} of {shown(same[0].source)} with options {shown(same[0].options)}"
    else:
        expected = "no mount there"
    given = f"{first.type} of {shown(first.source)} with options {shown(first.options)}"
    text = f"mount at {shown(first.destination)} is not one in the policy"
    return Reason("mounts", text, topic, expected, given, 'the container\'s "mounts" would have to list it')


def env_not_allowed(unaccepted: Sequence[str]) -> Reason:
    """Variables that no rule accepts."""
    listed = names(unaccepted)
    return Reason(
        "env",
        "environment variable is not allowed by the policy (or has another value)",
        "invalid env list: " + ",".join(listed),
        actual=", ".join(map(shown, listed[:10])) + (" and more" if len(listed) > 10 else ""),
        change='"env_rules" would have to accept this value of it',
    )


def env_missing(unmet: Sequence[EnvRule]) -> Reason:
    """Required variables that are not given."""
    return Reason(
        "env_required",
        "environment variable that the policy requires is missing (or has another value)",
        "missing required environment variable",
        expected=", ".join(shown(rule.describe()) for rule in unmet[:10]),
        change='the rule\'s "required" would have to be false',
    )


def env_ambiguous(ambiguous: Sequence[str]) -> Reason:
    """One name with two values."""
    return Reason(
        "env_ambiguous",
        "environment variable is given twice with different values",
        "invalid env list: " + ",".join(ambiguous),
        actual=", ".join(map(shown, ambiguous[:10])),
    )


def env(rules: EnvRules, variables: tuple[str, ...], *, dropping: bool) -> list[Reason]:
    """What these rules have against these variables; nothing where they accept them."""
    reasons = []
    unaccepted = rules.unaccepted(variables)
    if unaccepted and not dropping:
        reasons.append(env_not_allowed(unaccepted))
    unmet = rules.unmet(variables)
    if unmet:
        reasons.append(env_missing(unmet))
    return reasons


def env_undecidable(*candidates: tuple[str, ...]) -> Reason:
    """Several containers would keep equally many, but different, variables."""
    differing = set(candidates[0]).symmetric_difference(*candidates[1:2]) if candidates else set()
    return Reason(
        "env_undecidable",
        "several containers of the policy would each keep other environment variables",
        "invalid env list",
        actual=", ".join(map(shown, names(sorted(differing))[:10])),
        change="the containers would have to differ in their command or keep the same variables",
    )


def capabilities(expected: Capabilities, given: Capabilities) -> Reason:
    """Other capabilities; about the first set that differs."""
    for name, mine, theirs in zip(CAPABILITY_SETS, expected.sets(), given.sets(), strict=True):
        if len(mine) == len(theirs) and set(mine) == set(theirs):
            continue
        extra, missing = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
        parts = [f"extra {', '.join(extra)}"] if extra else []
        parts += [f"missing {', '.join(missing)}"] if missing else []
        actual = "; ".join(parts) or "one of them twice"
        text = f"{name} capabilities are not those in the policy"
        change = f'"capabilities.{name}" would have to be {shown(theirs)}'
        return Reason("capabilities", text, "capabilities don't match", actual=actual[:_MAX_SHOWN], change=change)
    return Reason("capabilities", "capabilities are not those in the policy", "capabilities don't match")


def capabilities_undecidable() -> Reason:
    """Several containers would keep equally many, but different, capabilities."""
    return Reason(
        "capabilities_undecidable",
        "several containers of the policy would each keep other capabilities",
        "containers only distinguishable by capabilties",
        change="the containers would have to differ in their command or have the same capabilities",
    )


def stdio_undecidable(what: str) -> Reason:
    """Several candidates remain that differ in allow_stdio_access."""
    return Reason(
        "stdio_undecidable",
        f"several {what} of the policy match, which differ only in allow_stdio_access",
        f"{what} only distinguishable by allow_stdio_access",
        change=f'the {what} would have to agree in "allow_stdio_access"',
    )


def attestation_undecidable() -> Reason:
    """Several candidates remain that may reach different things of attestation, or would get different keys."""
    return Reason(
        "attestation_undecidable",
        "several containers of the policy match, which differ in what of attestation they may reach",
        "containers only distinguishable by attestation",
        change='the containers would have to agree in "attestation", and in everything if they list "/key/derive"',
    )


def repeated(view: View, variables: Sequence[str]) -> list[Reason]:
    """The reason for variables given twice with different values, if there are any and that counts."""
    found = [] if view.policy.parity else ambiguous_variables(variables)
    return [env_ambiguous(found)] if found else []
