# SPDX-License-Identifier: Apache-2.0
"""What a decision may look at: policy, history, and the constants of the platform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from parma_policy.framework.decision import Reason
from parma_policy.framework.state import State
from parma_policy.model import (
    Capabilities,
    Container,
    ExternalProcess,
    FragmentRule,
    MountRule,
    PlatformRule,
    Policy,
    TrustListRule,
)

UNPRIVILEGED_CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What a policy's ``capabilities: null`` means for a container that is not privileged: containerd's defaults."""

PRIVILEGED_CAPABILITIES: Final = (
    *UNPRIVILEGED_CAPABILITIES,
    "CAP_DAC_READ_SEARCH",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_LEASE",
    "CAP_AUDIT_CONTROL",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""The same for a privileged one: every capability of Linux."""


_UNPRIVILEGED: Final = Capabilities(
    UNPRIVILEGED_CAPABILITIES, UNPRIVILEGED_CAPABILITIES, (), UNPRIVILEGED_CAPABILITIES, ()
)
_PRIVILEGED: Final = Capabilities(
    PRIVILEGED_CAPABILITIES, PRIVILEGED_CAPABILITIES, PRIVILEGED_CAPABILITIES, PRIVILEGED_CAPABILITIES, ()
)


@dataclass(frozen=True, slots=True)
class Platform:
    """Constants of the runtime that the policy is decided for.

    Our guest makes the default mounts of every container itself, so that none of them is asked for; the reference
    has them asked for and allows them to every container.
    """

    default_mounts: tuple[MountRule, ...] = ()
    privileged_mounts: tuple[MountRule, ...] = ()
    """Allowed to containers with ``allow_elevated``."""
    unprivileged: Capabilities = _UNPRIVILEGED
    privileged: Capabilities = _PRIVILEGED


GUEST: Final = Platform()
"""The platform of Parma's guest."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a decision may depend on besides the request."""

    policy: Policy
    state: State
    platform: Platform

    def after(self, **changes: object) -> State:
        """The state with some fields replaced."""
        return replace(self.state, **changes)  # type: ignore[arg-type]

    def platform_rules(self) -> Iterator[PlatformRule]:
        """Of the policy and of loaded fragments."""
        yield from self.policy.platform_rules
        for fragment in self.state.fragments:
            yield from fragment.platform_rules

    def fragment_rules(self) -> Iterator[FragmentRule]:
        """Fragments that may be loaded."""
        yield from self.policy.fragments
        for fragment in self.state.fragments:
            yield from fragment.fragments

    def external_processes(self) -> Iterator[ExternalProcess]:
        """Processes that may run outside of containers."""
        if self.policy.no_external_processes:
            return
        yield from self.policy.external_processes
        for fragment in self.state.fragments:
            yield from fragment.external_processes

    def trust_list_rules(self) -> Iterator[TrustListRule]:
        """Transparency trust lists that may be loaded."""
        yield from self.policy.transparency_trust_lists
        for fragment in self.state.fragments:
            yield from fragment.transparency_trust_lists

    def has_layer(self, root_hash: str) -> bool:
        """Whether some container of policy or fragments has this layer."""
        if root_hash in self.policy.mountable_layers:
            return True
        return any(root_hash in fragment.containers.layers for fragment in self.state.fragments)

    def containers_of(self, layers: tuple[str, ...]) -> Iterator[Container]:
        """The containers with exactly these layers, base first, with each platform rule's additions."""
        indexes = [self.policy.containers, *(fragment.containers for fragment in self.state.fragments)]
        rules = list(self.platform_rules())
        for index in indexes:
            for container in index.by_layers.get(layers, ()):
                yield from [_with_platform(container, rule) for rule in rules] or [container]


def _with_platform(container: Container, rule: PlatformRule) -> Container:
    return replace(container, env_rules=container.env_rules + rule.env_rules, mounts=(*container.mounts, *rule.mounts))


def unusable(view: View) -> list[Reason]:
    """The reason why nothing in the policy's lists counts, if there is one."""
    problem = view.policy.framework_problem
    return [Reason("framework_version", problem, problem)] if problem else []
