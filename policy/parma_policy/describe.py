# SPDX-License-Identifier: Apache-2.0
"""A policy as a person would describe it: what may run, with what, and what nobody may do."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator

from parma_policy.framework.view import PRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES
from parma_policy.model import (
    Capabilities,
    Container,
    EnvRule,
    ExternalProcess,
    FragmentRule,
    IdName,
    MountRule,
    Policy,
)
from parma_policy.points import POINTS


def describe(policy: Policy) -> str:
    """The description, lines of text."""
    return "".join(f"{line}\n" for line in _lines(policy))


def _lines(policy: Policy) -> Iterator[str]:
    yield f"A VM whose attestation report has HOST_DATA {policy.sha256.hex()} enforces this policy"
    yield f"(api_version {policy.api_version or 'none'}, framework_version {policy.framework_version or 'none'})."
    if policy.extensions.permissive:
        yield ""
        yield "IT IS PERMISSIVE: what is not listed here is allowed all the same, and only recorded."
    for problem in (policy.api_problem, policy.framework_problem):
        if problem:
            yield ""
            yield f"IT IS OF NO USE: {problem}. {'Nothing' if problem is policy.api_problem else 'No container'} runs."
    containers = policy.containers.containers
    yield ""
    yield _count(len(containers), "container may run", "containers may run") + (":" if containers else ".")
    for container in containers:
        yield ""
        yield from _container(container)
    yield from _external(policy.external_processes)
    yield from _fragments(policy.fragments)
    yield ""
    yield "The host may"
    yield from _bullets(_host_may(policy))
    yield ""
    yield "Nobody may"
    yield from _bullets(_nobody_may(policy))


def _container(container: Container) -> Iterator[str]:
    name = f" ({container.name})" if container.name else ""
    yield f"{container.place}{name}: an image of {_count(len(container.layers), 'layer', 'layers')}, running"
    yield f"    {_command(container.command)}"
    yield f"  in {container.working_dir} as {_user(container)}, new files with umask {container.user.umask}"
    yield f"  {_privileges(container)}"
    yield from _list("environment", map(_variable, container.env_rules.rules), "no variables")
    yield from _list("mounts", map(_mount, container.mounts), "none but the guest's own")
    yield from _list(
        "later commands",
        (f"{_command(process.command)} ({_signals(process.signals)})" for process in container.exec_processes),
        "none",
    )
    yield f"  signals: {_signals(container.signals)}"
    yield f"  input and output: {'with the host' if container.allow_stdio_access else 'none'}"
    reachable = ", ".join(sorted(container.may_reach(sandbox=False))) or "none"
    yield f"  attestation: {reachable}{'' if container.attestation is not None else ' (as the cloud gives everyone)'}"
    yield f"  layers, base first: {', '.join(layer[:12] for layer in container.layers)}"


def _privileges(container: Container) -> str:
    words = ["possibly privileged, which is as good as the whole VM" if container.allow_elevated else "not privileged"]
    words.append(_capabilities(container.capabilities))
    words.append("no new privileges" if container.no_new_privileges else "set-uid programs may gain privileges")
    words.append(f"seccomp profile {container.seccomp_profile_sha256[:12] or 'none'}")
    return "; ".join(words)


def _capabilities(capabilities: Capabilities | None) -> str:
    if capabilities is None:
        return "containerd's default capabilities"
    held = set(capabilities.bounding)
    if held == set(UNPRIVILEGED_CAPABILITIES):
        return "containerd's default capabilities"
    if held == set(PRIVILEGED_CAPABILITIES):
        return "all capabilities"
    if not held:
        return "no capabilities"
    more, less = sorted(held - set(UNPRIVILEGED_CAPABILITIES)), sorted(set(UNPRIVILEGED_CAPABILITIES) - held)
    if more and not less:
        return f"containerd's default capabilities and {', '.join(more)}"
    return f"the capabilities {', '.join(sorted(held))}"


def _external(processes: Iterable[ExternalProcess]) -> Iterator[str]:
    for process in processes:
        yield ""
        yield f"{process.place}: outside of the containers, in the VM itself, may run"
        yield f"    {_command(process.command)}"
        yield f"  in {process.working_dir}"
        yield from _list("environment", map(_variable, process.env_rules.rules), "no variables")


def _fragments(rules: Iterable[FragmentRule]) -> Iterator[str]:
    for number, rule in enumerate(rules):
        yield ""
        yield f"fragments[{number}]: {rule.issuer}"
        yield f"  may add {', '.join(sorted(rule.includes)) or 'nothing'} by its feed {rule.feed}, "
        yield f"  from security version {rule.minimum_svn} on"
        if rule.required_receipts:
            yield f"  with transparency receipts of {', '.join(rule.required_receipts)}"


def _host_may(policy: Policy) -> Iterator[str]:
    yield "stop, pause and delete containers, and end the VM; set limits of memory, processor time and processes"
    flags = policy.flags
    if flags.allow_properties_access:
        yield "see statistics and process lists"
    if any(container.allow_stdio_access for container in policy.containers.containers):
        yield "read the output and write the input of containers that say so"
    if flags.allow_runtime_logging:
        yield "see the enforcer's log"
    if flags.allow_dump_stacks:
        yield "see the enforcer's stacks"
    if flags.allow_unencrypted_scratch:
        yield "have containers write to space that is not encrypted"
    if flags.allow_host_network:
        yield "give containers the VM's own network"
    if policy.extensions.allow_network:
        yield "connect the containers to a network, and see and change all that goes over it"
    if policy.forward_ports:
        yield f"connect to {_ports(policy)} on the containers' loopback"
    if flags.allow_environment_variable_dropping:
        yield "ask for variables that no rule accepts; they are left out"
    if flags.allow_capability_dropping:
        yield "ask for capabilities that are not listed; they are left out"
    if policy.extensions.denials_show_arguments:
        yield "see arguments of commands in denials"
    if policy.extensions.denials_show_environment:
        yield "see values of environment variables in denials"


def _nobody_may(policy: Policy) -> Iterator[str]:
    if policy.extensions.permissive:
        yield "mount a layer whose content is not that of its root hash, or use one place for two things"
        return
    yield "run any other image, leave out a layer, change their order or a byte of them"
    yield "start any of them with another command, user, working directory, mount, privilege or further variable"
    containers = policy.containers.containers
    if not any(container.exec_processes for container in containers):
        yield "run a further command in a container"
    else:
        yield "run further commands but those listed"
    if not any(container.allow_elevated for container in containers):
        yield "have a privileged container"
    if not policy.external_processes:
        yield "run anything in the VM outside of the containers"
    if not policy.fragments:
        yield "add to this policy"
    flags = policy.flags
    absent = [
        (flags.allow_properties_access, "see statistics or process lists"),
        (flags.allow_runtime_logging, "see the enforcer's log"),
        (flags.allow_dump_stacks, "see the enforcer's stacks"),
        (flags.allow_unencrypted_scratch, "have a container write to space that is not encrypted"),
        (flags.allow_host_network, "give a container the VM's own network"),
        (policy.extensions.allow_network, "connect the containers to a network"),
        (bool(policy.forward_ports), "connect to what containers serve on their loopback"),
    ]
    yield from (text for allowed, text in absent if not allowed)
    if not any(container.allow_stdio_access for container in containers):
        yield "read the output or write the input of a container"
    missing = [name for name, point in POINTS.items() if point.linux and name not in policy.rules]
    if missing:
        yield f"ask for what the policy has no rule for, where its api_version knows it: {', '.join(missing)}"


def _ports(policy: Policy) -> str:
    return f"port{'s' if len(policy.forward_ports) > 1 else ''} {', '.join(map(str, sorted(policy.forward_ports)))}"


# -- words -------------------------------------------------------------------------------------------------------


def _command(command: Iterable[str]) -> str:
    return " ".join(map(json.dumps, command))


def _variable(rule: EnvRule) -> str:
    what = f"{rule.pattern.text}={rule.value.text}" if rule.value else rule.pattern.text
    how = [] if rule.literal else ["expression"]
    how += ["required"] if rule.required else []
    return f"{what} ({', '.join(how)})" if how else what


def _mount(mount: MountRule) -> str:
    content = ", what the host provides being pinned" if mount.pins is not None else ""
    content = ", what the host provides may change" if mount.updates else content
    return f"{mount.destination} from {mount.source} ({', '.join((mount.type, *mount.options))}){content}"


def _user(container: Container) -> str:
    groups = " or ".join(map(_id, container.user.groups))
    return f"{_id(container.user.user, 'user')}{f' with groups {groups}' if groups else ' without groups'}"


def _id(rule: IdName, what: str = "") -> str:
    words = {"any": f"any {what}".rstrip(), "id": f"{what} {rule.pattern}", "name": f"{what} named {rule.pattern}"}
    return words.get(rule.strategy, f"{what} whose name matches {rule.pattern}").strip()


def _signals(signals: Iterable[int]) -> str:
    return ", ".join(_signal(number) for number in sorted(signals)) or "no signals"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _list(title: str, items: Iterable[str], otherwise: str) -> Iterator[str]:
    listed = list(items)
    if not listed:
        yield f"  {title}: {otherwise}"
        return
    yield f"  {title}:"
    yield from (f"    {item}" for item in listed)


def _bullets(items: Iterable[str]) -> Iterator[str]:
    yield from (f"  - {item}" for item in items)


def _count(number: int, one: str, many: str) -> str:
    return f"{number or 'No'} {one if number == 1 else many}"
