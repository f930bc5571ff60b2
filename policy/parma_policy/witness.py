# SPDX-License-Identifier: Apache-2.0
"""Requests that a container of a policy is meant to allow: the conversation that leads to it, and its values.

For comparing policies and for checking learned ones. Everything in them comes from the policy's own data; where the
data is an expression, a text that it accepts stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES
from parma_policy.model import CAPABILITY_SETS, Capabilities, Container, EnvRule, EnvRules, IdName, MountRule
from parma_policy.patterns import TextPattern
from parma_policy.samples import samples

ID: Final = "c0" * 32
SANDBOX: Final = f"/run/gcs/c/{ID}/sandboxMounts"
HUGE_PAGES: Final = f"/run/gcs/c/{ID}/hugepages"

Request = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One request at one enforcement point."""

    call: str
    input: Mapping[str, Any]


def preparation(layers: Sequence[str]) -> list[Question]:
    """Layers (base first) and overlay of container ``ID``."""
    targets = [f"/run/mounts/scsi/m{number}" for number in range(len(layers))]
    mounts = [
        Question("mount_device", {"target": target, "deviceHash": layer})
        for target, layer in zip(targets, layers, strict=True)
    ]
    overlay = {"containerID": ID, "layerPaths": targets[::-1], "target": f"/run/gcs/c/{ID}/rootfs"}
    return [*mounts, Question("mount_overlay", overlay)]


def variables(rule: EnvRule) -> list[str]:
    """``NAME=value`` texts that the rule accepts."""
    if rule.value is None:
        return [text for text in samples(rule.pattern) if rule.matches(text)]
    names, values = samples(rule.pattern), samples(rule.value)
    found = [f"{names[0]}={value}" for value in values] if names else []
    found += [f"{name}={values[0]}" for name in names] if values else []
    return list(dict.fromkeys(text for text in found if rule.matches(text)))


def environment(rules: EnvRules) -> list[str]:
    """The least environment that the rules allow: one variable for each required rule."""
    found: dict[str, None] = {}
    for rule in rules.rules:
        if rule.required and not any(map(rule.matches, found)):
            found.update(dict.fromkeys(variables(rule)[:1]))
    return list(found)


def identity(rule: IdName) -> Request:
    """A user or group that the rule accepts."""
    match rule.strategy:
        case "any":
            return {"id": "0", "name": "root"}
        case "id":
            return {"id": rule.pattern, "name": ""}
        case "name":
            return {"id": "4242", "name": rule.pattern}
        case "re2":
            accepted = samples(_expression(rule))
            return {"id": "4242", "name": accepted[0] if accepted else ""}


def _expression(rule: IdName) -> TextPattern:
    from parma_policy.patterns import PatternCache

    return PatternCache().make(rule.pattern, "re2")


def source(rule: MountRule) -> str:
    """A source that the rule accepts."""
    if rule.source_tail is None:
        return rule.source
    directory = SANDBOX if rule.source.startswith("sandbox") else HUGE_PAGES
    accepted = [text for text in samples(rule.source_tail) if text.startswith("/")] or samples(rule.source_tail)
    return directory + (accepted[0] if accepted else "")


def mount(rule: MountRule) -> Request:
    """A mount that the rule accepts."""
    return {
        "destination": rule.destination,
        "source": source(rule),
        "type": rule.type,
        "options": list(rule.options),
    }


def capabilities(container: Container, *, privileged: bool = False) -> Request:
    """The capabilities that the container has."""
    held = container.capabilities
    if held is None:
        names = PRIVILEGED_CAPABILITIES if privileged and container.allow_elevated else UNPRIVILEGED_CAPABILITIES
        held = Capabilities(names, names, names if privileged else (), names, ())
    return {name: list(getattr(held, name)) for name in CAPABILITY_SETS}


def process(container: Container, command: Sequence[str], *, privileged: bool = False) -> Request:
    """What creating and running a further command have in common."""
    return {
        "containerID": ID,
        "argList": list(command),
        "envList": environment(container.env_rules),
        "workingDir": container.working_dir,
        "noNewPrivileges": True,
        "user": identity(container.user.user),
        "groups": [identity(rule) for rule in container.user.groups[:1]],
        "umask": container.user.umask,
        "capabilities": capabilities(container, privileged=privileged),
    }


def creation(container: Container, *, privileged: bool = False) -> Request:
    """The least request that creates the container."""
    return {
        **process(container, container.command, privileged=privileged),
        "sandboxDir": SANDBOX,
        "hugePagesDir": HUGE_PAGES,
        "mounts": [],
        "devices": [],
        "privileged": privileged,
        "seccompProfileSHA256": container.seccomp_profile_sha256,
        "isSandboxContainer": False,
    }


def signal_to_init(number: int) -> Question:
    """A signal to the container's first process."""
    asked = {"containerID": ID, "signal": number, "isInitProcess": True, "argList": []}
    return Question("signal_container_process", asked)


def signal_to_exec(command: Sequence[str], number: int) -> Question:
    """A signal to a further command."""
    asked = {"containerID": ID, "signal": number, "isInitProcess": False, "argList": list(command)}
    return Question("signal_container_process", asked)


def alternatives(container: Container) -> Iterator[tuple[str, Request]]:
    """Requests that create the container in every way that one of its rules says: (what it is about, request)."""
    base = creation(container)
    yield "the container itself", base
    yield "no_new_privileges off", {**base, "noNewPrivileges": False}
    if container.allow_elevated:
        yield "privileged", creation(container, privileged=True)
    for number, rule in enumerate(container.env_rules.rules):
        for text in variables(rule)[:_SHOWN]:
            if text not in base["envList"]:
                name = text.partition("=")[0]
                others = [other for other in base["envList"] if other.partition("=")[0] != name]
                yield f"env_rules[{number}]", {**base, "envList": [*others, text]}
    for number, rule_ in enumerate(container.mounts):
        yield f"mounts[{number}]", {**base, "mounts": [mount(rule_)]}
    for number, group in enumerate(container.user.groups):
        yield f"user.group_idnames[{number}]", {**base, "groups": [identity(group)]}
    yield "no groups", {**base, "groups": []}


_SHOWN: Final = 6
