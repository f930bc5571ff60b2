# SPDX-License-Identifier: Apache-2.0
"""All rules of ``parma policy lint``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from parma_policy.framework.narrowing import choose_env
from parma_policy.lint.finding import Finding, Severity, Sheet
from parma_policy.lint.patterns import env_findings, mount_findings, user_findings
from parma_policy.lint.provided import provided_findings
from parma_policy.model import Container
from parma_policy.points import POINTS
from parma_policy.reader import PolicyTextError, load
from parma_policy.reader.policy import decode
from parma_policy.reader.syntax import parse
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION
from parma_wire.errors import Malformed

RULES: Final = MappingProxyType(
    {
        "load": "The guest refuses the policy.",
        "version": "api_version or framework_version is missing, unknown, newer than the guest's, or old.",
        "no-rule": "The policy's api_version knows an enforcement point for which it has no rule: always denied.",
        "permissive": "Nothing is denied: a policy for learning, never for a secret.",
        "debug-flag": "A flag that opens the group for debugging, or shows what may be secret.",
        "properties": "The host sees statistics and process lists.",
        "elevated": "A container may be privileged: it then owns the VM.",
        "capability": "A capability that amounts to owning the VM.",
        "new-privileges": "Set-uid programs may gain privileges.",
        "seccomp": "No seccomp profile.",
        "shell": "A shell may be run in the container by the host.",
        "stdio": "A shell's or interpreter's input comes from the host.",
        "env-any": "Any environment variable is accepted.",
        "env-any-value": "Any value of a variable is accepted.",
        "mount-any-source": "Any directory of the sandbox may be mounted.",
        "mount-wide-source": "A mount's source may be of several kinds, or any file of the host.",
        "host-code": "The host provides files where programs and libraries are, and no `sha256` fixes them.",
        "host-trust": "The host provides accounts, keys or trusted certificates, and no `sha256` fixes them.",
        "host-secret": "The host provides a secret: it knows it, and may provide another.",
        "host-updates": "The host may change what names mean, or code or trust, while containers run.",
        "user-any": "Any user may be asked for.",
        "user-expression": "A user or group is accepted by an expression on its name.",
        "umask-open": "New files are writable by everybody.",
        "alternation": "An alternation at the top of an expression escapes the anchors.",
        "unanchored": "An expression that looks anchored but is not.",
        "unescaped-dot": "A dot in what looks like a name or address accepts any character.",
        "plain-expression": "An expression without any special character.",
        "duplicate-rule": "The same environment rule, mount, exec or signal list twice.",
        "dead-rule": "A rule that can never hold.",
        "duplicate-container": "The same container twice.",
        "dead-container": "A container that can never be created.",
        "ambiguous": "Containers that the guest cannot tell apart: the requests are denied.",
        "fragment": "A fragment rule that accepts more than it seems to.",
    }
)
"""Stable id of each rule and what it finds."""

_SHELLS: Final = frozenset(("sh", "bash", "ash", "dash", "zsh", "busybox", "python", "python3", "perl", "node"))
_OWNING: Final = frozenset(
    ("CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_BPF")
)
_DEBUG_FLAGS: Final = MappingProxyType(
    {
        "allow_dump_stacks": "the host may have the enforcer's stacks",
        "allow_runtime_logging": "the host sees the enforcer's log",
        "allow_unencrypted_scratch": "what containers write may be readable by the host",
        "allow_host_network": "containers may have the VM's own network",
    }
)
_SHOWING: Final = MappingProxyType(
    {
        "denials_show_arguments": "denials, and so the host's logs, quote command lines",
        "denials_show_environment": "denials, and so the host's logs, quote values of environment variables",
    }
)


def lint(data: bytes) -> list[Finding]:
    """The findings about a policy's text, in the order of the text."""
    try:
        policy = load(data)
    except PolicyTextError as error:
        return [Finding("load", Severity.ERROR, error.line, error.column, "", str(error))]
    except Malformed as error:
        return [Finding("load", Severity.ERROR, 1, 1, "", str(error))]
    sheet = Sheet(parse(decode(data)), policy)
    found = [finding for check in _CHECKS for finding in check(sheet)]
    return sorted(found, key=lambda finding: (finding.line, finding.column, finding.rule))


def _versions(sheet: Sheet) -> Iterator[Finding]:
    policy = sheet.policy
    names = (
        ("api_version", "api_svn", policy.api_version, policy.api_problem, API_VERSION),
        ("framework_version", "framework_svn", policy.framework_version, policy.framework_problem, FRAMEWORK_VERSION),
    )
    for name, old_name, version, problem, current in names:
        path = name if name in sheet.document.statements or old_name not in sheet.document.statements else old_name
        if problem:
            yield sheet.finding("version", Severity.ERROR, path, f"{problem}; nothing that depends on it is allowed")
        elif version is not None and version > current:
            message = f"{version} is newer than this guest's, {current}"
            yield sheet.finding("version", Severity.WARNING, path, message)
        elif version is not None and version < current:
            message = f"{version} is older than this guest's, {current}: what came later has its default"
            yield sheet.finding("version", Severity.INFO, path, message)


def _rules(sheet: Sheet) -> Iterator[Finding]:
    api = sheet.policy.api_version
    for name, point in POINTS.items():
        if point.linux and api is not None and api >= point.introduced and name not in sheet.policy.rules:
            severity = Severity.WARNING if name in _NEEDED else Severity.INFO
            message = f"there is no rule for {name}: it is always denied"
            yield sheet.finding("no-rule", severity, "api_version", message)


_NEEDED: Final = frozenset(
    (
        *("mount_device", "unmount_device", "rw_mount_device", "rw_unmount_device", "mount_overlay"),
        *("unmount_overlay", "create_container", "scratch_mount", "scratch_unmount", "shutdown_container"),
    )
)
"""Points without which no container runs, or none can be removed."""


def _flags(sheet: Sheet) -> Iterator[Finding]:
    policy = sheet.policy
    if policy.extensions.permissive:
        message = "nothing is denied, whatever else the policy says: for learning only"
        yield sheet.finding("permissive", Severity.ERROR, "permissive", message)
    for name, meaning in _DEBUG_FLAGS.items():
        if getattr(policy.flags, name):
            yield sheet.finding("debug-flag", Severity.WARNING, name, meaning)
    for name, meaning in _SHOWING.items():
        if getattr(policy.extensions, name):
            yield sheet.finding("debug-flag", Severity.WARNING, name, meaning)
    if policy.flags.allow_properties_access:
        message = "the host sees statistics and process lists"
        yield sheet.finding("properties", Severity.INFO, "allow_properties_access", message)


def _containers(sheet: Sheet) -> Iterator[Finding]:
    for container in sheet.policy.containers.containers:
        yield from _privileges(sheet, container)
        yield from _processes(sheet, container)
        yield from env_findings(sheet, container.place, container.env_rules.rules)
        yield from mount_findings(sheet, container.place, container.mounts)
        yield from provided_findings(sheet, container)
        yield from user_findings(sheet, container)
    for process in sheet.policy.external_processes:
        yield from env_findings(sheet, process.place, process.env_rules.rules)
        message = "a process outside of the containers: it has the whole VM"
        yield sheet.finding("elevated", Severity.WARNING, process.place, message)


def _privileges(sheet: Sheet, container: Container) -> Iterator[Finding]:
    place = container.place
    if container.allow_elevated:
        message = "the container may be privileged, and then owns the VM: every container of the group is its prey"
        yield sheet.finding("elevated", Severity.WARNING, f"{place}.allow_elevated", message)
    owning = sorted(_OWNING.intersection(*([container.capabilities.bounding] if container.capabilities else [()])))
    if owning and not container.allow_elevated:
        message = f"{', '.join(owning)}: as good as owning the VM"
        yield sheet.finding("capability", Severity.WARNING, f"{place}.capabilities.bounding", message)
    if not container.no_new_privileges:
        message = "set-uid programs of the image may gain privileges"
        yield sheet.finding("new-privileges", Severity.INFO, f"{place}.no_new_privileges", message)
    if not container.seccomp_profile_sha256:
        yield sheet.finding("seccomp", Severity.INFO, f"{place}.seccomp_profile_sha256", "no seccomp profile")


def _processes(sheet: Sheet, container: Container) -> Iterator[Finding]:
    seen: dict[tuple[str, ...], int] = {}
    for number, process in enumerate(container.exec_processes):
        path = f"{container.place}.exec_processes[{number}]"
        if not process.command:
            yield sheet.finding("dead-rule", Severity.WARNING, path, "an empty command cannot be run")
        elif _is_shell(process.command) and len(process.command) == 1:
            message = f"the host may run {process.command[0]} in the container, with its own input: it may do anything"
            yield sheet.finding("shell", Severity.ERROR, path, message)
        if seen.setdefault(process.command, number) != number:
            message = f"the same command as exec_processes[{seen[process.command]}]; their signals add up"
            yield sheet.finding("duplicate-rule", Severity.INFO, path, message)
    if not container.command:
        message = "without a command the container cannot be created"
        yield sheet.finding("dead-container", Severity.WARNING, f"{container.place}.command", message)
    elif container.allow_stdio_access and len(container.command) == 1 and _is_shell(container.command):
        message = f"{container.command[0]} reads what to do from its input, which is the host's"
        yield sheet.finding("stdio", Severity.WARNING, f"{container.place}.allow_stdio_access", message)


def _is_shell(command: tuple[str, ...]) -> bool:
    return command[0].rpartition("/")[2] in _SHELLS


def _alike(sheet: Sheet) -> Iterator[Finding]:
    """Containers of the same layers that requests cannot tell apart."""
    policy = sheet.policy
    for group in policy.containers.by_layers.values():
        for number, second in enumerate(group):
            for first in group[:number]:
                finding = _pair(sheet, first, second, dropping=policy.flags.allow_environment_variable_dropping)
                if finding is not None:
                    yield finding
                    break


def _pair(sheet: Sheet, first: Container, second: Container, *, dropping: bool) -> Finding | None:
    def same_but(**changes: object) -> bool:
        neutral = {"id": "", "name": "", "place": "", "identity": b"", **changes}
        return replace(first, **neutral) == replace(second, **neutral)  # type: ignore[arg-type]

    if same_but():
        message = f"the same as {first.place}"
        return sheet.finding("duplicate-container", Severity.WARNING, second.place, message)
    if same_but(allow_stdio_access=False):
        message = f"differs from {first.place} only in allow_stdio_access: whatever matches both is denied"
        return sheet.finding("ambiguous", Severity.ERROR, f"{second.place}.allow_stdio_access", message)
    if same_but(attestation=None):
        message = f"differs from {first.place} only in what of attestation it may reach: what matches both is denied"
        return sheet.finding("ambiguous", Severity.ERROR, f"{second.place}.attestation", message)
    if dropping and same_but(env_rules=first.env_rules):
        own = tuple(rule.pattern.text for rule in (*first.env_rules.rules, *second.env_rules.rules) if rule.literal)
        if choose_env((first, second), lambda container: container.env_rules, own, dropping=True).undecided:
            message = (
                f"differs from {first.place} only in env_rules, while variables may be dropped: where both keep "
                "equally many, the request is denied"
            )
            return sheet.finding("ambiguous", Severity.WARNING, f"{second.place}.env_rules", message)
    return None


def _fragments(sheet: Sheet) -> Iterator[Finding]:
    for number, rule in enumerate(sheet.policy.fragments):
        path = f"fragments[{number}]"
        if rule.minimum_svn in (0, None) or str(rule.minimum_svn).startswith("0.0.0"):
            message = "every version of the fragment is accepted, also those that were withdrawn"
            yield sheet.finding("fragment", Severity.WARNING, f"{path}.minimum_svn", message)
        if not rule.includes:
            yield sheet.finding("dead-rule", Severity.INFO, f"{path}.includes", "nothing of the fragment counts")
        if "fragments" in rule.includes:
            message = "the issuer may name further issuers, whom nobody sees in this policy"
            yield sheet.finding("fragment", Severity.INFO, f"{path}.includes", message)


_CHECKS: Final[tuple[Callable[[Sheet], Iterator[Finding]], ...]] = (
    _versions,
    _rules,
    _flags,
    _containers,
    _alike,
    _fragments,
)
