# SPDX-License-Identifier: Apache-2.0
"""Findings about patterns: what an expression accepts that its author can hardly have meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from parma_policy.lint.finding import Finding, Severity, Sheet
from parma_policy.model import Container, EnvRule, IdName, MountRule
from parma_policy.patterns import TextPattern, anchored

_HOST_OR_FILE: Final = re.compile(r"(?<!\\)(?:[a-z0-9-]+\.){1,4}(?:[a-z]{2,6}|[0-9]{1,3})\b(?![*+?{])")
"""A dot between words or numbers, as in a host name, an address, a version or a file name."""

_PROBES: Final = ("EVIL=/x.so", "ANY=thing", "PATH=/evil", "A=1")


def env_findings(sheet: Sheet, place: str, rules: tuple[EnvRule, ...]) -> Iterator[Finding]:
    """About environment rules."""
    seen: dict[EnvRule, int] = {}
    for number, rule in enumerate(rules):
        path = f"{place}.env_rules[{number}]"
        if seen.setdefault(rule, number) != number:
            message = f"the same rule as env_rules[{seen[rule]}]"
            yield sheet.finding("duplicate-rule", Severity.INFO, path, message)
        yield from _wide_env(sheet, path, rule)
        if rule.value is None:
            yield from _pattern(sheet, f"{path}.pattern", rule.pattern)
        else:
            yield from _pattern(sheet, f"{path}.name", rule.pattern)
            yield from _pattern(sheet, f"{path}.value", rule.value)


def _wide_env(sheet: Sheet, path: str, rule: EnvRule) -> Iterator[Finding]:
    if all(map(rule.matches, _PROBES)):
        message = "accepts every variable but those that load code: the host then decides what programs do"
        yield sheet.finding("env-any", Severity.ERROR, path, message)
        return
    value = rule.value or rule.pattern
    tail = value.text if rule.value else value.text.partition("=")[2]
    if value.strategy == "re2" and tail.removesuffix("$") in (".*", ".+", "(.*)", "(.+)", r"[\s\S]*"):
        message = "accepts any value"
        yield sheet.finding("env-any-value", Severity.WARNING, path, message)


def mount_findings(sheet: Sheet, place: str, mounts: tuple[MountRule, ...]) -> Iterator[Finding]:
    """About mounts."""
    seen: dict[MountRule, int] = {}
    for number, mount in enumerate(mounts):
        path = f"{place}.mounts[{number}]"
        if seen.setdefault(mount, number) != number:
            yield sheet.finding("duplicate-rule", Severity.INFO, path, f"the same mount as mounts[{seen[mount]}]")
        if not mount.destination:
            yield sheet.finding("dead-rule", Severity.WARNING, path, "a mount without a destination is never allowed")
        if mount.source.startswith("plan9://"):
            message = "shares are never mounted by this guest, so no source is ever accepted"
            yield sheet.finding("dead-rule", Severity.WARNING, f"{path}.source", message)
        if mount.source_tail is not None:
            if mount.source_tail.text.strip("^$/") in (".*", ".+"):
                message = "accepts any source below the sandbox's directory, the volumes of other containers included"
                yield sheet.finding("mount-any-source", Severity.WARNING, f"{path}.source", message)
            for finding in _pattern(sheet, f"{path}.source", mount.source_tail):
                if finding.rule != "plain-expression":  # mounts have no other way to say it
                    yield finding


def user_findings(sheet: Sheet, container: Container) -> Iterator[Finding]:
    """About users and groups."""
    path = f"{container.place}.user"
    if container.user.user.strategy == "any":
        yield sheet.finding("user-any", Severity.WARNING, f"{path}.user_idname", "any user may be asked for, root too")
    rules: list[tuple[str, IdName]] = [(f"{path}.user_idname", container.user.user)]
    rules += [(f"{path}.group_idnames[{number}]", rule) for number, rule in enumerate(container.user.groups)]
    for at, rule in rules:
        if rule.strategy == "re2":
            message = "names come from the image's account files; an id says more"
            yield sheet.finding("user-expression", Severity.INFO, at, message)
            yield from _pattern(sheet, at, TextPattern(rule.pattern, "re2"))
    if container.user.umask[-1:] in ("0", "1", "4", "5"):
        message = f"with umask {container.user.umask} new files are writable by everybody in the container"
        yield sheet.finding("umask-open", Severity.WARNING, f"{path}.umask", message)


def _pattern(sheet: Sheet, path: str, pattern: TextPattern) -> Iterator[Finding]:
    if pattern.strategy != "re2":
        return
    text = pattern.text
    if _top_level_alternation(text):
        message = (
            f"the anchors are added as text, so this means {anchored(text)!r}: its first part accepts anything behind, "
            "its last anything in front; put it in parentheses"
        )
        yield sheet.finding("alternation", Severity.ERROR, path, message)
    if text.endswith("$") and _escaped_end(text):
        message = "ends in an escaped '$', which counts as an anchor: anything may follow; write '\\$$'"
        yield sheet.finding("unanchored", Severity.ERROR, path, message)
    if re.search(r"\(\?[a-zA-Z]*m", text):
        message = "with (?m) the anchors are those of a line: other lines may say anything"
        yield sheet.finding("unanchored", Severity.ERROR, path, message)
    dotted = _HOST_OR_FILE.search(text)
    if dotted:
        message = f"an unescaped dot accepts any character: {dotted[0]!r}; write {re.escape(dotted[0])!r}"
        yield sheet.finding("unescaped-dot", Severity.WARNING, path, message)
    if not re.search(r"[\\^$.|?*+()\[\]{}]", text):
        message = "an expression without any special character; strategy 'string' says the same and is faster"
        yield sheet.finding("plain-expression", Severity.INFO, path, message)


def _escaped_end(text: str) -> bool:
    """Whether the last character is behind an odd number of backslashes."""
    body = text[:-1]
    return (len(body) - len(body.rstrip("\\"))) % 2 == 1


def _top_level_alternation(text: str) -> bool:
    """Whether a ``|`` stands outside of parentheses, classes and quotations."""
    depth, position = 0, 0
    while position < len(text):
        if text.startswith("\\Q", position):
            end = text.find("\\E", position)
            position = len(text) if end < 0 else end + 2
            continue
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character == "[":
            position = _class_end(text, position)
            continue
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
        position += 1
    return False


def _class_end(text: str, position: int) -> int:
    """Behind the character class that starts at ``position``."""
    position += 1
    position += text.startswith("^", position)
    position += text.startswith("]", position)  # first, it is a member
    while position < len(text) and text[position] != "]":
        if text.startswith("[:", position):
            end = text.find(":]", position)
            position = len(text) if end < 0 else end + 2
        else:
            position += 2 if text[position] == "\\" else 1
    return position + 1
