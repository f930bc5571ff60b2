# SPDX-License-Identifier: Apache-2.0
"""Creating containers, running commands in them, signals, and their end.

A container id starts with all containers of the policy that have the layers of its overlay. Every allowed request
leaves those that allow it: what was allowed decides what will be.
"""

from __future__ import annotations

from collections.abc import Callable

from parma_policy.framework.decision import Decision, Reason, denied
from parma_policy.framework.matching import (
    ambiguous_variables,
    default_capabilities,
    mounts_refused,
    new_privileges_allowed,
    user_allowed,
)
from parma_policy.framework.narrowing import (
    CapabilityChoice,
    EnvChoice,
    choose_capabilities,
    choose_env,
    drops_capabilities,
)
from parma_policy.framework.state import Started, State, with_item, without
from parma_policy.framework.view import View, unusable
from parma_policy.model import Container, EnvRules
from parma_policy.requests import CreateContainer, ExecInContainer, ShutdownContainer, SignalContainerProcess

Outcome = tuple[Decision, State]
Candidates = tuple[Container, ...]
_Process = CreateContainer | ExecInContainer
_Explain = Callable[[Candidates], list[Reason]]


def create_container(view: View, request: CreateContainer) -> Outcome:
    """A container may be created once for each id, on an overlay mounted for it, as some candidate says."""
    point, state = "create_container", view.state
    if request.container_id in state.started:
        text = "this container id was used before"
        return denied(point, Reason("already_started", text, "container already started")), state
    candidates = state.candidates(request.container_id)
    if not candidates:
        return denied(point, *_no_candidates(view)), state

    if not view.policy.parity and all(o.container_id != request.container_id for o in state.overlays.values()):
        text = "the overlay of this container was unmounted"
        return denied(point, Reason("not_mounted", text, "no matching containers for overlay")), state

    def explanation(closest_of: Candidates) -> list[Reason]:
        from parma_policy.framework import denials

        return denials.create(view, closest_of, request)

    remaining = tuple(container for container in candidates if _may_create(view, container, request))
    outcome = _process(view, point, candidates, remaining, request, request.privileged, explanation)
    if not isinstance(outcome, tuple):
        return outcome, state
    env, caps = outcome
    remaining = caps.candidates
    stdio, sandbox = remaining[0].allow_stdio_access, request.is_sandbox_container
    if any(container.allow_stdio_access != stdio for container in remaining):
        from parma_policy.framework import explain

        places = (container.place for container in remaining)
        return denied(point, explain.stdio_undecidable("containers", places)), state
    reachable = {(container.may_reach(sandbox=sandbox), container.identity) for container in remaining}
    if len(reachable) > 1:
        from parma_policy.framework import explain

        return denied(point, explain.attestation_undecidable()), state
    attestation, identity = reachable.pop()
    decision = Decision(
        True,
        point,
        env_list=env.kept,
        caps=caps.kept,
        allow_stdio_access=stdio,
        attestation=attestation,
        identity=identity,
    )
    return decision, view.after(
        matches=with_item(state.matches, request.container_id, remaining),
        started=with_item(state.started, request.container_id, Started(request.privileged, stdio)),
    )


def exec_in_container(view: View, request: ExecInContainer) -> Outcome:
    """A command may be run in a created container if some candidate lists it."""
    point, state = "exec_in_container", view.state
    started = state.started.get(request.container_id)
    if started is None:
        return denied(point, *_not_started(view)), state
    candidates = state.candidates(request.container_id)
    if not candidates:
        return denied(point, _shut_down("invalid command")), state

    def explanation(closest_of: Candidates) -> list[Reason]:
        from parma_policy.framework import denials

        return denials.execute(view, closest_of, request, privileged=started.privileged)

    remaining = tuple(container for container in candidates if _may_exec(container, request))
    outcome = _process(view, point, candidates, remaining, request, started.privileged, explanation)
    if not isinstance(outcome, tuple):
        return outcome, state
    env, caps = outcome
    decision = Decision(
        True,
        point,
        env_list=env.kept,
        caps=caps.kept,
        allow_stdio_access=started.allow_stdio_access,
    )
    return decision, view.after(matches=with_item(state.matches, request.container_id, caps.candidates))


def signal_container_process(view: View, request: SignalContainerProcess) -> Outcome:
    """A signal must be listed: for the container's first process, or for the command that the process was run with."""
    point, state = "signal_container_process", view.state
    if request.container_id not in state.started:
        return denied(point, *_not_started(view)), state
    candidates = state.candidates(request.container_id)
    remaining = tuple(container for container in candidates if request.signal in _signals(container, request))
    if not remaining:
        return denied(point, _signal_reason(view, candidates, request)), state
    return (
        Decision(True, point),
        view.after(matches=with_item(state.matches, request.container_id, remaining)),
    )


def shutdown_container(view: View, request: ShutdownContainer) -> Outcome:
    """A created container may be ended, also repeatedly. Its id cannot be used again."""
    point, state = "shutdown_container", view.state
    started = state.started.get(request.container_id)
    if started is None:
        return denied(point, *_not_started(view)), state
    ended = Started(started.privileged, started.allow_stdio_access, shut_down=True)
    return (
        Decision(True, point),
        view.after(
            matches=without(state.matches, request.container_id),
            started=with_item(state.started, request.container_id, ended),
        ),
    )


# -- shared by create and exec -----------------------------------------------------------------------------------


def _process(
    view: View,
    point: str,
    candidates: Candidates,
    remaining: Candidates,
    request: _Process,
    privileged: bool,
    explanation: _Explain,
) -> Decision | tuple[EnvChoice[Container], CapabilityChoice[Container]]:
    """Environment and capabilities, which are decided alike: the choices, or the denial."""
    flags = view.policy.flags
    if not remaining:
        return denied(point, *explanation(candidates))
    env = choose_env(remaining, _env_rules, request.env_list, dropping=flags.allow_environment_variable_dropping)
    ambiguous = repeated(view, env.kept) if env.candidates else []
    if env.undecided or ambiguous:
        from parma_policy.framework import explain

        reason = explain.env_undecidable(*env.undecided) if env.undecided else explain.env_ambiguous(ambiguous)
        return denied(point, reason)
    caps = choose_capabilities(
        env.candidates,
        lambda container: default_capabilities(view, container, privileged),
        request.capabilities,
        dropping=drops_capabilities(view.policy),
    )
    if caps.undecided:
        from parma_policy.framework import explain

        return denied(point, explain.capabilities_undecidable())
    if not caps.candidates:
        return denied(point, *explanation(remaining))
    return env, caps


def repeated(view: View, variables: tuple[str, ...]) -> list[str]:
    """Names of variables that are given twice with different values, where that counts."""
    return [] if view.policy.parity else ambiguous_variables(variables)


def _env_rules(container: Container) -> EnvRules:
    return container.env_rules


def _may_create(view: View, container: Container, request: CreateContainer) -> bool:
    return (
        container.command == request.arg_list
        and container.working_dir == request.working_dir
        and new_privileges_allowed(container, request.no_new_privileges)
        and (container.allow_elevated or not request.privileged)
        and container.seccomp_profile_sha256 == request.seccomp_profile_sha256
        and not request.devices
        and user_allowed(container.user, request)
        and not mounts_refused(view, container, request)
    )


def _may_exec(container: Container, request: ExecInContainer) -> bool:
    return (
        any(process.command == request.arg_list for process in container.exec_processes)
        and container.working_dir == request.working_dir
        and new_privileges_allowed(container, request.no_new_privileges)
        and user_allowed(container.user, request)
    )


def _signals(container: Container, request: SignalContainerProcess) -> frozenset[int]:
    if request.is_init_process:
        return container.signals
    processes = (process for process in container.exec_processes if process.command == request.arg_list)
    return frozenset(signal for process in processes for signal in process.signals)


# -- reasons -----------------------------------------------------------------------------------------------------


def _no_candidates(view: View) -> list[Reason]:
    text = "no overlay of layers in the policy is mounted for this container"
    return [*unusable(view), Reason("no_overlay", text, "invalid command")]


def _not_started(view: View) -> list[Reason]:
    return [*unusable(view), Reason("not_started", "there is no such container", "container not started")]


def _shut_down(topic: str) -> Reason:
    return Reason("shut_down", "the container was shut down", topic)


def _signal_reason(view: View, candidates: Candidates, request: SignalContainerProcess) -> Reason:
    if not candidates:
        return _shut_down("target isn't allowed to receive the signal")
    from parma_policy.framework import denials

    accepted = sorted(frozenset().union(*(_signals(container, request) for container in candidates)))
    return denials.signal(view, candidates, accepted, request)
