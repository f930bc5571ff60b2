# SPDX-License-Identifier: Apache-2.0
"""Whether one container of the policy allows one property of a request. No explanations here, see ``explain``."""

from __future__ import annotations

from collections.abc import Sequence

from parma_policy.framework.view import View
from parma_policy.model import Capabilities, Container, MountRule, User
from parma_policy.patterns import compile_anchored
from parma_policy.requests import CreateContainer, ExecInContainer, Mount, ProvideFiles

_SANDBOX = "sandbox://"
_PLAN9 = "plan9://"

WRITABLE_SYSFS = Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "rw"))
"""The mount that only a pod's sandbox container may have besides what the policy lists."""


def user_allowed(rule: User, request: CreateContainer | ExecInContainer) -> bool:
    """User, every group and the umask."""
    return (
        request.umask == rule.umask
        and rule.user.matches(request.user.id, request.user.name)
        and all(any(group.matches(given.id, given.name) for group in rule.groups) for given in request.groups)
    )


def new_privileges_allowed(container: Container, no_new_privileges: bool) -> bool:
    """A policy that says no_new_privileges demands it; another accepts it too."""
    return no_new_privileges or not container.no_new_privileges


def default_capabilities(view: View, container: Container, privileged: bool) -> Capabilities:
    """The container's capabilities, with the defaults where the policy leaves them open."""
    if container.capabilities is not None:
        return container.capabilities
    return view.platform.privileged if privileged and container.allow_elevated else view.platform.unprivileged


def clean_path(path: str) -> bool:
    """Whether ``path`` has no empty, ``.`` or ``..`` component; a trailing slash is accepted."""
    components = path.removeprefix("/").removesuffix("/").split("/")
    return components == [""] or not any(component in ("", ".", "..") for component in components)


def mounts_refused(view: View, container: Container, request: CreateContainer) -> list[Mount]:
    """The mounts of the request that the container may not have."""
    rules = [*container.mounts, *view.platform.default_mounts]
    if container.allow_elevated:
        rules += view.platform.privileged_mounts
    return [mount for mount in request.mounts if not _mount_allowed(view, rules, mount, request)]


def _mount_allowed(view: View, rules: Sequence[MountRule], mount: Mount, request: CreateContainer) -> bool:
    if not mount.destination:
        return False
    if not view.policy.parity and not (clean_path(mount.destination) and clean_path(mount.source)):
        return False
    if request.is_sandbox_container and _same_mount(mount, WRITABLE_SYSFS) and mount.source == WRITABLE_SYSFS.source:
        return True
    return any(_same_mount(mount, rule) and source_allowed(view, rule, mount.source, request) for rule in rules)


def _same_mount(mount: Mount, rule: MountRule | Mount) -> bool:
    return (
        mount.destination == rule.destination
        and mount.type == rule.type
        and len(mount.options) == len(rule.options)
        and set(mount.options) == set(rule.options)
    )


def source_allowed(view: View, rule: MountRule, source: str, request: CreateContainer) -> bool:
    """Whether ``rule`` accepts this source, and what is there."""
    if rule.pins is not None and view.state.provided.get(source) != rule.pins:
        return False
    return source_named(view, rule, source, request)


def source_named(view: View, rule: MountRule, source: str, request: CreateContainer | ProvideFiles) -> bool:
    """Whether ``rule`` accepts this source by its name."""
    if source == rule.source:
        return True
    if rule.source.startswith(_PLAN9):
        return view.state.plan9_mounts.get(source) == request.container_id
    if rule.source_tail is None:
        return False
    directory = request.sandbox_dir if rule.source.startswith(_SANDBOX) else request.huge_pages_dir
    if view.policy.parity:
        return _matches_as_one_expression(directory + rule.source_tail.text, source)
    return bool(directory) and source.startswith(directory) and rule.source_tail.matches(source[len(directory) :])


def _matches_as_one_expression(expression: str, source: str) -> bool:
    compiled = compile_anchored(expression)
    return compiled is not None and compiled.search(source) is not None


def ambiguous_variables(variables: Sequence[str]) -> list[str]:
    """Names that are given with two different values."""
    values: dict[str, str] = {}
    ambiguous: dict[str, None] = {}
    for variable in variables:
        name, _, value = variable.partition("=")
        if values.setdefault(name, value) != value:
            ambiguous[name] = None
    return list(ambiguous)
