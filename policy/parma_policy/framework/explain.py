# SPDX-License-Identifier: Apache-2.0
"""Reasons about processes: one function for each rule, saying what was expected, what came, and what would have to
change where in the policy.

Loaded for a denial only: it takes longer to load than a decision takes. Arguments of commands and values of
environment variables may be secrets: they appear only where the policy says so, see ``model.Extensions``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parma_policy.framework.decision import Reason, shown
from parma_policy.model import (
    CAPABILITY_SETS,
    Capabilities,
    Container,
    EnvRule,
    EnvRules,
    ExecProcess,
    Extensions,
    IdName,
)
from parma_policy.requests import CreateContainer, ExecInContainer, Mount, UserName

_MAX_LISTED = 10


def names(variables: Iterable[str]) -> list[str]:
    """Names of environment variables."""
    return list(dict.fromkeys(variable.partition("=")[0] for variable in variables))


def command_line(show: Extensions, command: Sequence[str]) -> str:
    """A command line, as far as the policy lets denials show it: at least the program and the number of arguments."""
    if show.denials_show_arguments or len(command) <= 1:
        return shown(list(command))
    count = len(command) - 1
    return f"{shown(command[0])} with {count} argument{'s' if count > 1 else ''}"


def _variables(show: Extensions, variables: Sequence[str]) -> str:
    listed = list(variables) if show.denials_show_environment else names(variables)
    return ", ".join(map(shown, listed[:_MAX_LISTED])) + (" and more" if len(listed) > _MAX_LISTED else "")


def first_difference(expected: Sequence[str], given: Sequence[str]) -> int:
    """Index of the first argument that differs, or is missing, or is too much."""
    pairs = enumerate(zip(expected, given, strict=False))
    return next((index for index, (mine, theirs) in pairs if mine != theirs), min(len(expected), len(given)))


def command(show: Extensions, place: str, expected: Sequence[str], given: Sequence[str]) -> Reason:
    """Another command line."""
    at = first_difference(expected, given)
    differs = "the program" if at == 0 else f"argument {at}"
    change = f"{place}.command would have to be {command_line(show, given)}"
    if not show.denials_show_arguments:
        change += f", with {differs} as it was asked for"
    return Reason(
        "command",
        f"command is not the one in the policy, {differs} differs",
        "invalid command",
        command_line(show, expected),
        command_line(show, given),
        change,
        f"{place}.command[{at}]" if at < len(expected) else f"{place}.command",
    )


def exec_command(show: Extensions, place: str, listed: Sequence[ExecProcess], given: Sequence[str]) -> Reason:
    """A command that may not be run in the container."""
    lines = [command_line(show, process.command) for process in listed]
    expected = "one of " + "; ".join(lines[:_MAX_LISTED]) if listed else "none: the policy lists no exec_processes"
    return Reason(
        "command",
        "command is not one that the policy lets run in this container",
        "invalid command",
        expected + (" and more" if len(lines) > _MAX_LISTED else ""),
        command_line(show, given),
        f"{place}.exec_processes would have to list {command_line(show, given)}",
        f"{place}.exec_processes",
    )


def working_dir(place: str, expected: str, given: str) -> Reason:
    """Another working directory."""
    return Reason(
        "working_dir",
        "working directory is not the one in the policy",
        "invalid working directory",
        shown(expected),
        shown(given),
        f"{place}.working_dir would have to be {shown(given)}",
        f"{place}.working_dir",
    )


def no_new_privileges(place: str) -> Reason:
    """no_new_privileges is off although the policy demands it."""
    return Reason(
        "no_new_privileges",
        "no_new_privileges is not set",
        "invalid noNewPrivileges",
        "true",
        "false",
        f"{place}.no_new_privileges would have to be false",
        f"{place}.no_new_privileges",
    )


def privileged(place: str) -> Reason:
    """A privileged container where the policy does not allow one."""
    return Reason(
        "privileged",
        "privileged is not allowed for this container",
        "privileged escalation not allowed",
        "false",
        "true",
        f"{place}.allow_elevated would have to be true",
        f"{place}.allow_elevated",
    )


def devices(paths: Sequence[str]) -> Reason:
    """Host devices, which nobody may have."""
    return Reason("devices", "host devices are not supported", "devices not supported", "none", shown(list(paths)))


def seccomp(place: str, expected: str, given: str) -> Reason:
    """Another seccomp profile."""
    return Reason(
        "seccomp",
        "seccomp profile is not the one in the policy",
        "invalid seccomp",
        f"SHA-256 {expected}" if expected else "no profile",
        f"SHA-256 {given[:64]}" if given else "no profile",
        f"{place}.seccomp_profile_sha256 would have to be {shown(given)}",
        f"{place}.seccomp_profile_sha256",
    )


def _id_name(rule: IdName) -> str:
    """Of a rule that refuses somebody, which "any" never does."""
    return f"{rule.strategy} {shown(rule.pattern)}"


def _given_id(given: UserName) -> str:
    return f"{given.id} {shown(given.name)}" if given.name else given.id


def user(container: Container, request: CreateContainer | ExecInContainer) -> Reason:
    """User, group or umask, the first that differs."""
    rule, topic, place = container.user, "invalid user", f"{container.place}.user"
    if not rule.user.matches(request.user.id, request.user.name):
        given = _given_id(request.user)
        at = f"{place}.user_idname"
        change = f"{at} would have to accept {given}"
        return Reason("user", "user is not the one in the policy", topic, _id_name(rule.user), given, change, at)
    for group in request.groups:
        if not any(accepted.matches(group.id, group.name) for accepted in rule.groups):
            given = _given_id(group)
            expected = " or ".join(map(_id_name, rule.groups)) or "none"
            at = f"{place}.group_idnames"
            change = f"{at} would have to accept {given}"
            return Reason("group", "group is not one of those in the policy", topic, expected, given, change, at)
    at = f"{place}.umask"
    change = f"{at} would have to be {shown(request.umask)}"
    return Reason("umask", "umask is not the one in the policy", topic, rule.umask, shown(request.umask), change, at)


def mounts(container: Container, refused: Sequence[Mount]) -> Reason:
    """Mounts that the container may not have; about the first."""
    first, at = refused[0], f"{container.place}.mounts"
    topic = "invalid mount list: " + ",".join(mount.destination for mount in refused)
    same = [index for index, rule in enumerate(container.mounts) if rule.destination == first.destination]
    expected = "no mount there"
    if same:
        rule = container.mounts[same[0]]
        expected = f"{rule.type} of {shown(rule.source)} with options {shown(rule.options)}"
        at += f"[{same[0]}]"
    given = f"{first.type} of {shown(first.source)} with options {shown(first.options)}"
    text = f"mount at {shown(first.destination)} is not one in the policy"
    return Reason("mounts", text, topic, expected, given, f"{container.place}.mounts would have to list it", at)


def env_not_allowed(show: Extensions, place: str, unaccepted: Sequence[str]) -> Reason:
    """Variables that no rule accepts."""
    at = f"{place}.env_rules"
    return Reason(
        "env",
        "environment variable is not allowed by the policy (or has another value)",
        "invalid env list: " + ",".join(names(unaccepted)),
        actual=_variables(show, unaccepted),
        change=f"{at} would have to accept this value of it",
        where=at,
    )


def env_missing(show: Extensions, place: str, rules: EnvRules, unmet: Sequence[EnvRule]) -> Reason:
    """Required variables that are not given."""
    at = f"{place}.env_rules[{rules.rules.index(unmet[0])}]"
    described = [_rule(show, rule) for rule in unmet[:_MAX_LISTED]]
    return Reason(
        "env_required",
        "environment variable that the policy requires is missing (or has another value)",
        "missing required environment variable",
        expected=", ".join(map(shown, described)),
        change=f"{at}.required would have to be false",
        where=at,
    )


def _rule(show: Extensions, rule: EnvRule) -> str:
    if not show.denials_show_environment:
        return rule.describe()
    return rule.pattern.text if rule.value is None else f"{rule.pattern.text}={rule.value.text}"


def env_ambiguous(ambiguous: Sequence[str]) -> Reason:
    """One name with two values."""
    return Reason(
        "env_ambiguous",
        "environment variable is given twice with different values",
        "invalid env list: " + ",".join(ambiguous),
        actual=", ".join(map(shown, ambiguous[:_MAX_LISTED])),
    )


def env(show: Extensions, place: str, rules: EnvRules, variables: tuple[str, ...], *, dropping: bool) -> list[Reason]:
    """What these rules have against these variables; nothing where they accept them."""
    reasons = []
    unaccepted = rules.unaccepted(variables)
    if unaccepted and not dropping:
        reasons.append(env_not_allowed(show, place, unaccepted))
    unmet = rules.unmet(variables)
    if unmet:
        reasons.append(env_missing(show, place, rules, unmet))
    return reasons


def env_undecidable(one: tuple[str, ...], other: tuple[str, ...]) -> Reason:
    """Several containers would keep equally many, but different, variables."""
    return Reason(
        "env_undecidable",
        "several containers of the policy would each keep other environment variables",
        "invalid env list",
        actual=", ".join(map(shown, names(sorted(set(one) ^ set(other)))[:_MAX_LISTED])),
        change="the containers would have to differ in their command or keep the same variables",
    )


def capabilities(place: str, expected: Capabilities, given: Capabilities) -> Reason:
    """Other capabilities; about the first set that differs."""
    for name, mine, theirs in zip(CAPABILITY_SETS, expected.sets(), given.sets(), strict=True):
        if len(mine) == len(theirs) and set(mine) == set(theirs):
            continue
        extra, missing = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
        parts = [f"extra {', '.join(extra)}"] if extra else []
        parts += [f"missing {', '.join(missing)}"] if missing else []
        at = f"{place}.capabilities.{name}"
        return Reason(
            "capabilities",
            f"{name} capabilities are not those in the policy",
            "capabilities don't match",
            _short_list(sorted(mine)),
            ("; ".join(parts) or "one of them twice")[:300],
            f"{at} would have to be {_short_list(sorted(theirs))}",
            at,
        )
    return Reason("capabilities", "capabilities are not those in the policy", "capabilities don't match")


def _short_list(values: Sequence[str]) -> str:
    return shown(values) if len(values) <= 3 else f"a list of {len(values)}"


def capabilities_undecidable() -> Reason:
    """Several containers would keep equally many, but different, capabilities."""
    return Reason(
        "capabilities_undecidable",
        "several containers of the policy would each keep other capabilities",
        "containers only distinguishable by capabilties",
        change="the containers would have to differ in their command or have the same capabilities",
    )


def stdio_undecidable(what: str, places: Iterable[str]) -> Reason:
    """Several candidates remain that differ in allow_stdio_access."""
    return Reason(
        "stdio_undecidable",
        f"several {what} of the policy match, which differ only in allow_stdio_access",
        f"{what} only distinguishable by allow_stdio_access",
        change=f"the {what} would have to agree in allow_stdio_access",
        where=", ".join(dict.fromkeys(places))[:100],
    )


def attestation_undecidable() -> Reason:
    """Several candidates remain that may reach different things of attestation, or would get different keys."""
    return Reason(
        "attestation_undecidable",
        "several containers of the policy match, which differ in what of attestation they may reach",
        "containers only distinguishable by attestation",
        change='the containers would have to agree in "attestation", and in everything if they list "/key/derive"',
    )
