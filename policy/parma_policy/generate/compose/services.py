# SPDX-License-Identifier: Apache-2.0
"""A service of a Compose file, and what is wanted of its containers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_policy.generate import capabilities, seccomp_profiles
from parma_policy.generate.assemble import DEFAULT_SECCOMP, NO_SECCOMP, Seccomp, Variable, Wanted, health_check_commands
from parma_policy.generate.compose.interpolation import read_env_file
from parma_policy.generate.compose.volumes import Project, read_mounts
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import Text, quoted
from parma_policy.generate.policy import Exec
from parma_policy.generate.signals import signal_number
from parma_policy.generate.source import ContainerOptions, SourceContainer
from parma_wire.errors import Malformed, ParmaError

# About the host's side, resources, order and naming; not about what a container may do.
_IGNORED: Final = (
    *("annotations", "attach", "blkio_config", "cgroup_parent", "container_name", "cpu_count", "cpu_percent"),
    *("cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus", "cpuset", "depends_on"),
    *("develop", "dns", "dns_opt", "dns_search", "domainname", "expose", "extra_hosts", "label_file", "labels"),
    *("logging", "mac_address", "mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "networks"),
    *("oom_kill_disable", "oom_score_adj", "pids_limit", "ports", "profiles", "pull_policy", "restart", "runtime"),
    *("scale", "shm_size", "stdin_open", "stop_grace_period", "sysctls", "tty", "ulimits"),
)
_REFUSED: Final = {
    "cgroup": "a container in a VM shares no cgroup with its host",
    "credential_spec": "Windows is not supported",
    "device_cgroup_rules": "devices of the host are not supported",
    "devices": "devices of the host are not supported",
    "extends": "is not followed: write the service out",
    "external_links": "not supported",
    "gpus": "devices of the host are not supported",
    "init": "a program of the host would run in the container",
    "ipc": "a container in a VM shares nothing with its host",
    "isolation": "Windows is not supported",
    "links": "not supported: services find each other by name",
    "models": "not supported",
    "pid": "a container in a VM shares nothing with its host",
    "post_start": "nerdctl has no hooks",
    "pre_stop": "nerdctl has no hooks",
    "provider": "not supported",
    "storage_opt": "not supported",
    "use_api_socket": "the host's containers cannot be handed to a container",
    "userns_mode": "user namespaces are not supported; the VM is a stronger boundary",
    "uts": "a container in a VM shares nothing with its host",
    "volumes_from": "not supported",
}
_HARMLESS: Final = {"ipc": ("private", "shareable"), "cgroup": ("private",)}
_NETWORK_MODES: Final = ("none", "bridge")


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What services depend on besides their own fields."""

    project: Project
    variables: Mapping[str, str]
    """For variables without a value."""


def read_service(name: str, node: Node, settings: ServiceSettings, chosen: ContainerOptions) -> SourceContainer:
    """A service, as the container that it becomes."""
    with node.fields() as fields:
        fields.ignore(*_IGNORED, *(member for member, _ in fields if member.startswith("x-")))
        for member, why in _REFUSED.items():
            fields.refuse(member, why, harmless=_HARMLESS.get(member, ()))
        fields.refuse("network_mode", "a container in a VM shares no network", harmless=_NETWORK_MODES)
        fields.refuse("platform", "only linux/amd64 is supported", harmless=("linux", "linux/amd64"))
        _check_deploy(fields.child("deploy"))
        built = fields.get("build") is not None
        image = fields.text("image") or (f"{settings.project.name}-{name}" if built else "")
        if not image:
            node.problem("neither image nor build")
        wanted = _wanted(name, fields, settings, chosen)
    return SourceContainer(node, name, image, f"compose services.{name}", wanted, chosen)


def _wanted(name: str, fields: Fields, settings: ServiceSettings, chosen: ContainerOptions) -> Wanted:
    no_new_privileges, seccomp = _security(fields, Path(settings.project.directory))
    user = fields.get("user")
    health_check = _health_check(fields)
    entrypoint = _command(fields, "entrypoint")
    if entrypoint == ():
        fields.node.members()["entrypoint"].problem("nerdctl cannot take an image's entrypoint away")
    return Wanted(
        name=name,
        entrypoint=entrypoint,
        arguments=_command(fields, "command"),
        env=_environment(fields, settings, frozenset(chosen.any_value)),
        hostname=quoted(fields.text("hostname") or name),
        user=user.text(number_as_text=True) if user is not None else None,
        groups=_groups(fields),
        add=capabilities.read(fields.items("cap_add")),
        drop=capabilities.read(fields.items("cap_drop")),
        privileged=fields.flag("privileged"),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        read_only=fields.flag("read_only"),
        working_dir=fields.maybe_text("working_dir"),
        mounts=read_mounts(fields, settings.project),
        execs=health_check or (),
        image_health_check=health_check is None,
        stop_signal=_stop_signal(fields),
    )


def _command(fields: Fields, member: str) -> tuple[str, ...] | None:
    """A list, or a string that is split as a shell does."""
    node = fields.get(member)
    if node is None:
        return None
    if isinstance(node.value, list):
        return node.texts(number_as_text=True)
    try:
        return tuple(shlex.split(node.text(number_as_text=True)))
    except ValueError as error:
        node.problem(f"cannot be split into words: {error}")
        return None


def _environment(fields: Fields, settings: ServiceSettings, any_value: frozenset[str]) -> tuple[Variable, ...]:
    """``env_file`` first, then ``environment``."""
    found: dict[str, Variable] = {}
    for name, value, note in _env_files(fields, settings):
        found[name] = Variable(name, Text.of(value), note)
    node = fields.get("environment")
    for name, value_node in _pairs(node):
        if name in any_value:
            continue
        if value_node is None:
            if name not in settings.variables:
                assert node is not None  # noqa: S101 - there are pairs
                hint = f"give a file that sets it with --compose-env FILE, or say --any-value {name}"
                node.problem(f"{name} has no value, so it is taken from wherever the service is started", hint=hint)
                continue
            found[name] = Variable(name, Text.of(settings.variables[name]), "environment")
        else:
            found[name] = Variable(name, Text.of(_env_text(value_node)), "environment")
    return tuple(variable for variable in found.values() if variable.name not in any_value)


def _env_text(node: Node | str) -> str:
    text = node if isinstance(node, str) else node.text(number_as_text=True)
    if "\n" in text and not isinstance(node, str):
        node.problem("a value with a newline, which the guest does not take in variables", hint="mount it as a file")
    return text


def _pairs(node: Node | None) -> list[tuple[str, Node | str | None]]:
    """``environment`` as a mapping or as a list of ``NAME=value``; None for a name without a value."""
    if node is None:
        return []
    if isinstance(node.value, dict):
        return [(name, None if item.is_null else item) for name, item in node.value.items()]
    pairs: list[tuple[str, Node | str | None]] = []
    for item in node.items():
        name, separator, value = item.text().partition("=")
        if not name:
            item.problem("a variable without a name")
        elif "\n" in value:
            item.problem("a value with a newline, which the guest does not take in variables")
        else:
            pairs.append((name, value if separator else None))
    return pairs


def _env_files(fields: Fields, settings: ServiceSettings) -> list[tuple[str, str, str]]:
    node = fields.get("env_file")
    if node is None:
        return []
    found = []
    for item in node.items() if isinstance(node.value, list) else [node]:
        required = True
        if isinstance(item.value, dict):
            with item.fields() as inner:
                name = inner.needed_text("path")
                required = inner.flag("required", default=True)
                inner.refuse("format", "not supported")
        else:
            name = item.text()
        path = Path(settings.project.directory) / name
        if not required and not path.exists():
            item.problem(f"{name} is optional and not here, so its variables are not known")
            continue
        try:
            variables = read_env_file(path, settings.variables)
        except ParmaError as error:
            item.problem(error.message, hint=error.hint)
            continue
        found += [(variable, value, f"env_file {name}") for variable, value in variables.items()]
    return found


def _groups(fields: Fields) -> tuple[int, ...]:
    found = []
    for node in fields.items("group_add"):
        text = node.text(number_as_text=True)
        if text.isascii() and text.isdigit() and len(text) <= 9:
            found.append(int(text))
        else:
            node.problem("a group by name is not supported", hint="give its number")
    return tuple(found)


def _stop_signal(fields: Fields) -> str:
    node = fields.get("stop_signal")
    if node is None:
        return ""
    name = node.text(number_as_text=True)
    try:
        signal_number(name)
    except Malformed as error:
        node.problem(error.message)
        return ""
    return name


def _security(fields: Fields, directory: Path) -> tuple[bool | None, Seccomp | None]:
    """``security_opt``: whether new privileges are off, and the seccomp profile; None where it does not say."""
    no_new_privileges: bool | None = None
    seccomp: Seccomp | None = None
    for node in fields.items("security_opt"):
        text = node.text()
        separator = min((text.find(mark) for mark in "=:" if mark in text), default=len(text))
        name, value = text[:separator], text[separator + 1 :]
        match name, value:
            case "no-new-privileges", "" | "true":
                no_new_privileges = True
            case "no-new-privileges", "false":
                no_new_privileges = False
            case "seccomp", "unconfined":
                seccomp = NO_SECCOMP
            case "seccomp", "builtin":
                seccomp = DEFAULT_SECCOMP
            case "seccomp", file if file:
                seccomp = _profile(node, directory / file)
            case ("apparmor", "unconfined") | ("label", "disable") | ("privileged-without-host-devices", _):
                pass
            case _:
                node.problem(f"{name} is not supported in the VM")
    return no_new_privileges, seccomp


def _profile(node: Node, path: Path) -> Seccomp:
    try:
        return Seccomp("file", seccomp_profiles.from_file(path))
    except ParmaError as error:
        node.problem(error.message, hint=error.hint)
        return NO_SECCOMP


def _health_check(fields: Fields) -> tuple[Exec, ...] | None:
    """The commands that are run in the container; None where the image says."""
    check = fields.child("healthcheck")
    if check is None:
        return None
    with check:
        check.ignore("interval", "timeout", "retries", "start_period", "start_interval")
        disabled = check.flag("disable")
        node = check.get("test")
    if disabled:
        return ()
    if node is None:
        return None
    return health_check_commands(node.texts() if isinstance(node.value, list) else ("CMD-SHELL", node.text()))


def _check_deploy(fields: Fields | None) -> None:
    if fields is None:
        return
    with fields:
        fields.ignore("endpoint_mode", "labels", "mode", "placement", "replicas", "restart_policy")
        fields.ignore("rollback_config", "update_config")
        resources = fields.child("resources")
    if resources is None:
        return
    with resources:
        resources.ignore("limits")
        reservations = resources.child("reservations")
    if reservations is not None:
        with reservations:
            reservations.ignore("cpus", "memory", "pids")
            for name in ("devices", "generic_resources"):
                reservations.refuse(name, "devices of the host are not supported")
