# SPDX-License-Identifier: Apache-2.0
"""Why a process or its signal is denied: the rules that fail, for the candidate that came closest.

A reason is computed after the decision and never changes it. Loaded for a denial only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parma_policy.framework import explain
from parma_policy.framework.decision import Reason, shown
from parma_policy.framework.matching import default_capabilities, mounts_refused, new_privileges_allowed, user_allowed
from parma_policy.framework.narrowing import drops_capabilities
from parma_policy.framework.view import View
from parma_policy.model import Container, ExternalProcess
from parma_policy.requests import CreateContainer, ExecExternal, ExecInContainer, SignalContainerProcess

_Process = CreateContainer | ExecInContainer


def create(view: View, candidates: Sequence[Container], request: CreateContainer) -> list[Reason]:
    """Why none of the candidates may be created like this."""
    return _closest(
        candidates,
        lambda container: sum(
            (
                container.command != request.arg_list,
                request.privileged and not container.allow_elevated,
                container.seccomp_profile_sha256 != request.seccomp_profile_sha256,
                _distance(view, container, request, request.privileged),
            )
        ),
        lambda container: _why_not_create(view, container, request),
    )


def execute(view: View, candidates: Sequence[Container], request: ExecInContainer, *, privileged: bool) -> list[Reason]:
    """Why the command may not be run in any of the candidates."""
    return _closest(
        candidates,
        lambda container: _distance(view, container, request, privileged),
        lambda container: _why_not_exec(view, container, request, privileged),
    )


def external(
    view: View, processes: Sequence[ExternalProcess], request: ExecExternal, *, dropping: bool
) -> list[Reason]:
    """Why none of the external processes is this one."""
    show = view.policy.extensions

    def explanation(process: ExternalProcess) -> list[Reason]:
        reasons = []
        if process.command != request.arg_list:
            reasons.append(explain.command(show, process.place, process.command, request.arg_list))
        if process.working_dir != request.working_dir:
            reasons.append(explain.working_dir(process.place, process.working_dir, request.working_dir))
        return reasons + explain.env(show, process.place, process.env_rules, request.env_list, dropping=dropping)

    return min(map(explanation, processes), key=len)


def _closest(
    candidates: Sequence[Container],
    distance: Callable[[Container], int],
    explanation: Callable[[Container], list[Reason]],
) -> list[Reason]:
    """The reasons of the candidate with the fewest; of several, one with the right command, else the first.

    ``distance`` is at most the number of reasons. It is found much faster than they are, so that candidates which are
    far off need not be explained.
    """
    by_distance = sorted((distance(container), index) for index, container in enumerate(candidates))
    best: tuple[int, bool, int] | None = None
    found: list[Reason] = []
    for least, index in by_distance:
        if best is not None and least > best[0]:
            break
        reasons = explanation(candidates[index])
        rank = len(reasons), any(reason.code == "command" for reason in reasons), index
        if best is None or rank < best:
            best, found = rank, reasons
    return found


def _distance(view: View, container: Container, request: _Process, privileged: bool) -> int:
    """How many of the rules fail that creating a container and running a command in it share, or fewer."""
    flags = view.policy.flags
    return sum(
        (
            container.working_dir != request.working_dir,
            not user_allowed(container.user, request),
            not new_privileges_allowed(container, request.no_new_privileges),
            not flags.allow_environment_variable_dropping and not container.env_rules.allow(request.env_list),
            not flags.allow_capability_dropping
            and not default_capabilities(view, container, privileged).same_as(request.capabilities),
        )
    )


def _why_not_create(view: View, container: Container, request: CreateContainer) -> list[Reason]:
    reasons, place = [], container.place
    if container.command != request.arg_list:
        reasons.append(explain.command(view.policy.extensions, place, container.command, request.arg_list))
    if request.privileged and not container.allow_elevated:
        reasons.append(explain.privileged(place))
    reasons += _why_not_common(container, request)
    refused = mounts_refused(view, container, request)
    if refused:
        reasons.append(explain.mounts(container, refused))
    if container.seccomp_profile_sha256 != request.seccomp_profile_sha256:
        reasons.append(explain.seccomp(place, container.seccomp_profile_sha256, request.seccomp_profile_sha256))
    if request.devices:
        reasons.append(explain.devices(request.devices))
    return reasons + _why_not_narrowed(view, container, request, request.privileged)


def _why_not_exec(view: View, container: Container, request: ExecInContainer, privileged: bool) -> list[Reason]:
    reasons = []
    listed = container.exec_processes
    if not any(process.command == request.arg_list for process in listed):
        reasons.append(explain.exec_command(view.policy.extensions, container.place, listed, request.arg_list))
    return [*reasons, *_why_not_common(container, request), *_why_not_narrowed(view, container, request, privileged)]


def _why_not_common(container: Container, request: _Process) -> list[Reason]:
    reasons = []
    if container.working_dir != request.working_dir:
        reasons.append(explain.working_dir(container.place, container.working_dir, request.working_dir))
    if not user_allowed(container.user, request):
        reasons.append(explain.user(container, request))
    if not new_privileges_allowed(container, request.no_new_privileges):
        reasons.append(explain.no_new_privileges(container.place))
    return reasons


def _why_not_narrowed(view: View, container: Container, request: _Process, privileged: bool) -> list[Reason]:
    flags, show = view.policy.flags, view.policy.extensions
    dropping = flags.allow_environment_variable_dropping
    reasons = explain.env(show, container.place, container.env_rules, request.env_list, dropping=dropping)
    expected = default_capabilities(view, container, privileged)
    offered = request.capabilities.intersection(expected) if drops_capabilities(view.policy) else request.capabilities
    if not expected.same_as(offered):
        reasons.append(explain.capabilities(container.place, expected, request.capabilities))
    return reasons


def signal(
    view: View, candidates: Sequence[Container], accepted: Sequence[int], request: SignalContainerProcess
) -> Reason:
    """A signal that is not listed; ``accepted`` are those that are, for the same process."""
    at = f"{candidates[0].place}.signals"
    what = "the container"
    if not request.is_init_process:
        what = f"command {explain.command_line(view.policy.extensions, request.arg_list)}"
        listed = [process.command for process in candidates[0].exec_processes]
        at = f"{candidates[0].place}.exec_processes"
        at += f"[{listed.index(request.arg_list)}].signals" if request.arg_list in listed else ""
    return Reason(
        "signal",
        f"signal is not one that the policy lets {what} receive",
        "target isn't allowed to receive the signal",
        f"one of {list(accepted)}" if accepted else "none",
        str(request.signal),
        f"{at} would have to list {request.signal}",
        at,
    )


def overlay(view: View, layers: Sequence[str]) -> Reason:
    """No container has exactly these layers (base first); about the one that has the most of them in place."""
    text, topic = (
        "no container of the policy has exactly these layers in this order",
        "no matching containers for overlay",
    )
    change = "the policy would have to be generated again for this image"
    containers = view.policy.containers.containers
    if not containers:
        return Reason("layers", text, topic, change=change)

    def in_place(container: Container) -> int:
        return sum(mine == theirs for mine, theirs in zip(container.layers, layers, strict=False))

    closest = max(containers, key=in_place)
    at = explain.first_difference(closest.layers, layers)
    expected = f"layer {at} {shown(closest.layers[at])}" if at < len(closest.layers) else f"{at} layers"
    actual = shown(layers[at]) if at < len(layers) else f"{len(layers)} layers"
    return Reason("layers", text, topic, expected, actual, change, f"{closest.place}.layers")
