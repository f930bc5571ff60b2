# SPDX-License-Identifier: Apache-2.0
"""What a policy allows, in a few lines for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields

from parma_policy.model import Container, EnvRule, IdName, Policy
from parma_policy.points import POINTS


def as_json(policy: Policy) -> dict[str, object]:
    """The summary for programs."""
    return {
        "sha256": policy.sha256.hex(),
        "api_version": _text(policy.api_version),
        "framework_version": _text(policy.framework_version),
        "problems": [problem for problem in (policy.api_problem, policy.framework_problem) if problem],
        "containers": [_container_json(container) for container in policy.containers.containers],
        "external_processes": [list(process.command) for process in policy.external_processes],
        "fragments": [{"issuer": rule.issuer, "feed": rule.feed} for rule in policy.fragments],
        "flags": _flags(policy),
        "forward_ports": sorted(policy.forward_ports),
        "rules": sorted(policy.rules),
    }


def _container_json(container: Container) -> dict[str, object]:
    return {
        "name": container.name,
        "command": list(container.command),
        "layers": list(container.layers),
        "working_dir": container.working_dir,
        "env": [_variable(rule) for rule in container.env_rules.rules],
        "exec_processes": [list(process.command) for process in container.exec_processes],
        "signals": sorted(container.signals),
        "mounts": [mount.destination for mount in container.mounts],
        "allow_elevated": container.allow_elevated,
        "allow_stdio_access": container.allow_stdio_access,
        "no_new_privileges": container.no_new_privileges,
    }


def as_text(policy: Policy) -> str:
    """The summary for people."""
    return "".join(f"{line}\n" for line in _lines(policy))


def _lines(policy: Policy) -> Iterator[str]:
    yield f"HOST_DATA (SHA-256 of the policy): {policy.sha256.hex()}"
    yield f"api_version {_text(policy.api_version)}, framework_version {_text(policy.framework_version)}"
    if policy.api_problem:
        yield f"Nothing is allowed: {policy.api_problem}"
    if policy.framework_problem:
        yield f"No container can run: {policy.framework_problem}"
    for number, container in enumerate(policy.containers.containers, 1):
        yield ""
        yield from _container_lines(number, container)
    for process in policy.external_processes:
        yield f"Outside of containers may run: {json.dumps(process.command)}"
    for rule in policy.fragments:
        yield f"More may be added by fragments of {rule.issuer}, feed {rule.feed}: {', '.join(sorted(rule.includes))}"
    yield ""
    if policy.forward_ports:
        yield f"The host reaches these ports on loopback: {', '.join(map(str, sorted(policy.forward_ports)))}"
    on = [name for name, value in _flags(policy).items() if value]
    yield f"Switched on: {', '.join(on) or 'nothing'}"
    absent = [name for name, point in POINTS.items() if point.linux and name not in policy.rules]
    yield f"No rule for: {', '.join(absent) or 'nothing'}"


def _container_lines(number: int, container: Container) -> Iterator[str]:
    yield f"Container {number}{f' ({container.name})' if container.name else ''}"
    yield f"  command      {json.dumps(container.command)}"
    yield f"  in           {container.working_dir}"
    yield f"  as           {_id(container.user.user)}, groups {', '.join(map(_id, container.user.groups)) or 'none'}"
    yield f"  layers       {len(container.layers)}, base {container.layers[0][:16] if container.layers else '-'}..."
    yield f"  environment  {', '.join(map(_variable, container.env_rules.rules)) or 'none'}"
    yield f"  mounts       {', '.join(mount.destination for mount in container.mounts) or 'none'}"
    execs = "; ".join(json.dumps(process.command) for process in container.exec_processes)
    yield f"  exec         {execs or 'nothing'}"
    yield f"  signals      {', '.join(map(str, sorted(container.signals))) or 'none'}"
    yield f"  stdio        {'seen by the host' if container.allow_stdio_access else 'not seen by the host'}"
    yield f"  privileges   {_privileges(container)}"


def _privileges(container: Container) -> str:
    words = ["privileged allowed" if container.allow_elevated else "not privileged"]
    if container.capabilities is not None:
        words.append(f"{len(container.capabilities.bounding)} capabilities")
    words.append("no new ones" if container.no_new_privileges else "new ones possible")
    return ", ".join(words)


def _id(rule: IdName) -> str:
    return "any" if rule.strategy == "any" else f"{rule.strategy} {rule.pattern}"


def _variable(rule: EnvRule) -> str:
    return rule.describe() + ("" if rule.required else " (optional)")


def _text(version: object) -> str:
    return "none" if version is None else str(version)


def _flags(policy: Policy) -> dict[str, bool]:
    """Every switch of the policy, Parma's own included."""
    return {
        item.name: getattr(group, item.name) for group in (policy.flags, policy.extensions) for item in fields(group)
    }
