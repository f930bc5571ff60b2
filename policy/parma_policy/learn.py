# SPDX-License-Identifier: Apache-2.0
"""From the recording of a permissive run to the least policy that allows it.

Every container that was created becomes a container of the policy with exactly what was asked for: layers, command,
environment, mounts, user, commands run in it and signals sent to it. The result is checked by replaying the recording
against it, and by replaying it again with one value changed at a time: all of the former must be allowed, none of the
latter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from parma_policy.conversation import TRANSACTIONS, Conversation, Step
from parma_policy.generate import Switches, generate
from parma_policy.loaded import DataPolicy
from parma_policy.model import CAPABILITY_SETS, Policy
from parma_policy.points import closed_door
from parma_policy.reader import load
from parma_policy.reader.policy import PERMISSIVE_LINE
from parma_policy.session import Session
from parma_policy.simulate import simulate
from parma_wire.errors import Malformed, Unsupported

Request = Mapping[str, Any]

_SWITCHES: Final = {
    "get_properties": "allow_properties_access",
    "dump_stacks": "allow_dump_stacks",
    "runtime_logging": "allow_runtime_logging",
    "host_network": "allow_host_network",
    "configure_network": "allow_network",
}
_IGNORED: Final = (
    *("unmount_device", "unmount_overlay", "rw_mount_device", "rw_unmount_device", "scratch_mount"),
    *("scratch_unmount", "shutdown_container"),
)
"""Allowed by any policy, as far as they can be."""
_PORTS: Final = "forward_port"


def starting_policy() -> str:
    """A permissive policy that knows nothing: to run once, and learn from."""
    return f"{closed_door()}\n# For learning only: nothing is denied, everything is recorded.\n{PERMISSIVE_LINE}\n"


@dataclass(slots=True)
class _Seen:
    """One container as it was seen."""

    layers: tuple[str, ...]
    created: Request
    execs: list[Request] = field(default_factory=list)
    signals: set[int] = field(default_factory=set)
    exec_signals: dict[tuple[str, ...], set[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Learned:
    """The policy, and what it was checked with."""

    text: str
    allowed: int
    """Recorded requests that it allows: all."""
    denied: int
    """Changed requests that it denies: all that were tried."""


def learn(conversation: Conversation, *, logging: bool = False) -> Learned:
    """The least policy for a recording, checked. ``logging``: let the host read the enforcer's log, too.

    Raises Malformed for a recording that is incomplete or makes no sense, Unsupported where the policy language cannot
    say what was done.
    """
    if conversation.dropped:
        message = f"the recording is incomplete: {conversation.dropped} steps at its end did not fit"
        raise Malformed(message, hint="make a shorter run")
    steps = list(_kept(conversation.steps, logging=logging))
    seen, flags = _gather(steps)
    if not seen:
        raise Malformed("no container was created in this recording")
    objects: list[dict[str, object]] = []
    for container in seen:
        made = _container(container)
        if made not in objects:
            objects.append(made)
    switches = {name: name in flags for name in _SWITCHES.values()}
    ports = tuple(step.input["port"] for step in steps if step.call == _PORTS)
    text = generate(objects, Switches(forward_ports=ports, extra=switches))
    return _checked(text, replace(conversation, steps=tuple(steps)))


def _kept(steps: Sequence[Step], *, logging: bool) -> Iterator[Step]:
    """The steps that were allowed and carried out; the recording's own reading of the log is nobody's need."""
    pending: list[Step] | None = None
    for step in steps:
        if step.call in TRANSACTIONS:
            if step.call == "transaction_begin":
                pending = []
            elif step.call == "transaction_commit":
                yield from pending or ()
                pending = None
            else:
                pending = None
        elif (step.expect is not None and step.expect.get("allowed") is False) or (
            step.call == "runtime_logging" and not logging
        ):
            continue
        elif pending is not None:
            pending.append(step)
        else:
            yield step


def _gather(steps: Sequence[Step]) -> tuple[list[_Seen], set[str]]:
    """Containers in the order of their creation, and the flags needed."""
    devices: dict[str, str] = {}
    layers: dict[str, tuple[str, ...]] = {}
    seen: dict[str, _Seen] = {}
    flags: set[str] = set()
    for step in steps:
        given = step.input
        try:
            match step.call:
                case "mount_device":
                    devices[given["target"]] = given["deviceHash"]
                case "mount_overlay":
                    layers[given["containerID"]] = tuple(devices[path] for path in reversed(given["layerPaths"]))
                case "create_container":
                    seen[given["containerID"]] = _Seen(layers[given["containerID"]], given)
                case "exec_in_container":
                    seen[given["containerID"]].execs.append(given)
                case "signal_container_process":
                    _signal(seen[given["containerID"]], given)
                case call if call in _SWITCHES:
                    flags.add(_SWITCHES[call])
                case call if call not in _IGNORED and call != _PORTS:
                    raise Unsupported(f"step {step.line}: {call} cannot be learned", hint="write that part by hand")
        except (KeyError, TypeError):
            message = f"step {step.line}: {step.call} is about something that the recording does not have"
            raise Malformed(message, hint="record from the start of the VM") from None
    return list(seen.values()), flags


def _signal(container: _Seen, given: Request) -> None:
    if given["isInitProcess"]:
        container.signals.add(given["signal"])
    else:
        container.exec_signals.setdefault(tuple(given["argList"]), set()).add(given["signal"])


# -- one container -----------------------------------------------------------------------------------------------


def _container(seen: _Seen) -> dict[str, object]:
    created = seen.created
    processes = [created, *seen.execs]
    return {
        "command": list(created["argList"] or ()),
        "env_rules": _env_rules(processes),
        "layers": list(seen.layers),
        "mounts": [_mount(mount, created) for mount in created["mounts"]],
        "exec_processes": _execs(seen),
        "signals": sorted(seen.signals),
        "user": _user(processes),
        "capabilities": _capabilities(processes),
        "seccomp_profile_sha256": created["seccompProfileSHA256"],
        "allow_elevated": created["privileged"],
        "working_dir": _same(processes, "workingDir", "working directory"),
        "allow_stdio_access": True,
        "no_new_privileges": all(process["noNewPrivileges"] for process in processes),
        "attestation": [],
    }


def _same(processes: Sequence[Request], member: str, what: str) -> Any:
    """What all processes of a container have in common, as the policy has one place for it."""
    found = {json.dumps(process[member], sort_keys=True) for process in processes}
    if len(found) > 1:
        raise Unsupported(
            f"a command was run in a container with another {what} than the container's",
            expected="the container's own: a policy has one for both",
        )
    return processes[0][member]


def _env_rules(processes: Sequence[Request]) -> list[dict[str, object]]:
    """A rule for each variable; required where every process had it."""
    given = [list(dict.fromkeys(process["envList"] or ())) for process in processes]
    return [
        {
            "pattern": variable,
            "strategy": "string",
            "required": all(variable in environment for environment in given),
        }
        for variable in dict.fromkeys(variable for environment in given for variable in environment)
    ]


def _mount(mount: Request, created: Request) -> dict[str, object]:
    source = mount["source"]
    for prefix, directory in (("sandbox://", created["sandboxDir"]), ("hugepages://", created["hugePagesDir"])):
        if directory and source.startswith(f"{directory}/"):
            source = prefix + quoted(source[len(directory) :])  # the directory has the container's id in it
            break
    return {
        "destination": mount["destination"],
        "source": source,
        "type": mount["type"],
        "options": list(mount["options"] or ()),
    }


def quoted(text: str) -> str:
    """An RE2 expression that accepts exactly ``text``. It has no ``^`` or ``$``, which would count as anchors."""
    return "".join(map(_quoted_character, text))


def _quoted_character(character: str) -> str:
    if character.isascii() and (character.isalnum() or character in "_/-"):
        return character
    if character.isascii() and character.isprintable() and character not in " ^$":
        return f"\\{character}"
    return f"\\x{{{ord(character):X}}}"


def _execs(seen: _Seen) -> list[dict[str, object]]:
    commands = dict.fromkeys(tuple(process["argList"] or ()) for process in seen.execs)
    return [{"command": list(command), "signals": sorted(seen.exec_signals.get(command, ()))} for command in commands]


def _user(processes: Sequence[Request]) -> dict[str, object]:
    user = _same(processes, "user", "user")
    groups = dict.fromkeys(group["id"] for process in processes for group in process["groups"])
    return {
        "user_idname": {"pattern": user["id"], "strategy": "id"},
        "group_idnames": [{"pattern": group, "strategy": "id"} for group in groups],
        "umask": _same(processes, "umask", "umask"),
    }


def _capabilities(processes: Sequence[Request]) -> dict[str, list[str]]:
    given = [
        {**process, "sets": {name: sorted(process["capabilities"][name] or ()) for name in CAPABILITY_SETS}}
        for process in processes
    ]
    sets: dict[str, list[str]] = _same(given, "sets", "set of capabilities")
    return sets


# -- the check ---------------------------------------------------------------------------------------------------


def _checked(text: str, conversation: Conversation) -> Learned:
    """Replays the recording, and the recording with each value changed. Raises Malformed where either fails."""
    policy = load(text.encode())
    for outcome in simulate(DataPolicy(policy, conversation.platform), conversation):
        if not outcome.allowed:
            said = outcome.malformed or (outcome.decision.message() if outcome.decision else "")
            raise Malformed(f"step {outcome.step.line} cannot be allowed by any policy: {said}")
    denied = 0
    for step, changed in _changed_steps(policy, conversation):
        if changed:
            message = f"step {step.line}: {step.call} would be allowed with another {changed}"
            raise Malformed(message, hint="this recording needs a policy written by hand")
        denied += 1
    return Learned(text, len(conversation.steps), denied)


def _changed_steps(policy: Policy, conversation: Conversation) -> Iterator[tuple[Step, str]]:
    """Every step with each of its values changed: the step, and the value's name where the change was allowed."""
    session = Session.of(policy, conversation.platform)
    recorded = {_essence(step.call, step.input) for step in conversation.steps}
    for step in conversation.steps:
        for name, changed in mutations(step, conversation.steps):
            if _essence(step.call, changed) not in recorded:  # else it is what another container did
                yield step, name if session.ask(step.call, changed)[0].allowed else ""
        _, session = session.ask(step.call, step.input)


def _essence(call: str, given: Request) -> str:
    """A request without what differs between two containers that are the same."""
    own = {key: value for key, value in given.items() if key not in ("containerID", "sandboxDir", "hugePagesDir")}
    return json.dumps([call, own], sort_keys=True)


def mutations(step: Step, recorded: Sequence[Step]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests that differ from a recorded one in one value, each to be denied by what was learned from all."""
    given = dict(step.input)
    match step.call:
        case "mount_device":
            target = f"{given['target']}999"  # a free place
            yield "layer", {**given, "target": target, "deviceHash": _other_digest(given["deviceHash"])}
        case "mount_overlay" if len(given["layerPaths"]) > 1:
            yield "order of layers", {**given, "layerPaths": given["layerPaths"][::-1]}
            yield "number of layers", {**given, "layerPaths": given["layerPaths"][1:]}
        case "create_container":
            yield from _process_mutations(given, recorded)
            yield from _creation_mutations(given)
        case "exec_in_container":
            yield from _process_mutations(given, recorded)
        case "signal_container_process":
            used = {other.input["signal"] for other in recorded if other.call == step.call}
            yield "signal", {**given, "signal": next(number for number in range(1, 66) if number not in used)}


def _creation_mutations(given: Request) -> Iterator[tuple[str, dict[str, Any]]]:
    mounts = given["mounts"]
    yield "seccomp profile", {**given, "seccompProfileSHA256": _other_digest(given["seccompProfileSHA256"])}
    yield "device", {**given, "devices": ["/dev/kvm"]}
    if not given["privileged"]:
        yield "privilege", {**given, "privileged": True}
    extra = {"destination": "/mnt-x", "source": "/mnt-x", "type": "bind", "options": ["rbind"]}
    yield "mount", {**given, "mounts": [*mounts, extra]}
    for number, mount in enumerate(mounts):
        for member in ("destination", "source", "type"):
            changed = {**mount, member: f"{mount[member]}x"}
            yield f"mount's {member}", {**given, "mounts": _replaced(mounts, number, changed)}
        changed = {**mount, "options": [*(mount["options"] or ()), "suid-x"]}
        yield "mount's options", {**given, "mounts": _replaced(mounts, number, changed)}


def _process_mutations(given: Request, recorded: Sequence[Step]) -> Iterator[tuple[str, dict[str, Any]]]:
    arguments, env = given["argList"] or [], given["envList"] or []
    yield "argument more", {**given, "argList": [*arguments, "x"]}
    for number, argument in enumerate(arguments):
        yield f"argument {number}", {**given, "argList": _replaced(arguments, number, f"{argument}x")}
    yield "variable more", {**given, "envList": [*env, "PARMA_PROBE=/x.so"]}
    for number, variable in enumerate(env):
        yield f"value of {variable.partition('=')[0]}", {**given, "envList": _replaced(env, number, f"{variable}x")}
    yield "working directory", {**given, "workingDir": f"{given['workingDir']}/x"}
    yield "user", {**given, "user": {**given["user"], "id": f"{given['user']['id']}1"}}
    yield "group", {**given, "groups": [*given["groups"], {"id": "64999", "name": "other"}]}
    yield "umask", {**given, "umask": "0000" if given["umask"] != "0000" else "0022"}
    if all(step.input.get("noNewPrivileges", True) for step in recorded):  # else the policy has to accept both
        yield "no_new_privileges", {**given, "noNewPrivileges": False}
    for name in CAPABILITY_SETS:
        held = given["capabilities"][name] or []
        other = held[1:] if held else ["CAP_SYS_BOOT"]
        yield f"{name} capabilities", {**given, "capabilities": {**given["capabilities"], name: other}}


def _other_digest(digest: str) -> str:
    return ("0" if digest[:1] != "0" else "1") * 64


def _replaced(items: Sequence[Any], index: int, item: Any) -> list[Any]:
    return [*items[:index], item, *items[index + 1 :]]
