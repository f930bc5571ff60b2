# SPDX-License-Identifier: Apache-2.0
"""Policies, decisions and history as the documents that a policy's own rules see. Shapes and names are the reference
enforcer's: what its framework returns, and what it records in ``data.metadata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from parma_policy.framework import Decision, Platform, State
from parma_policy.model import CAPABILITY_SETS, Capabilities, Container, EnvRule, IdName, MountRule
from parma_policy.reader.syntax import FrozenJson
from parma_policy.rego.engine import Json

OSTYPE: Final = {"operatingsystem": {"ostype": "linux"}}
"""What ``data.metadata`` has from the start."""


def constants(platform: Platform) -> dict[str, Json]:
    """What there is below ``data`` besides the policy, the framework and the metadata."""
    return {
        "defaultMounts": [mount(rule) for rule in platform.default_mounts],
        "privilegedMounts": [mount(rule) for rule in platform.privileged_mounts],
        "sandboxPrefix": "sandbox://",
        "hugePagesPrefix": "hugepages://",
        "plan9Prefix": "plan9://",
        "defaultUnprivilegedCapabilities": list(platform.unprivileged.bounding),
        "defaultPrivilegedCapabilities": list(platform.privileged.bounding),
    }


def decision(made: Decision) -> dict[str, Json]:
    """The framework's answer, without its changes to the metadata."""
    if not made.allowed:
        return {"allowed": False}
    document: dict[str, Json] = {"allowed": True}
    if made.env_list is not None:
        document["env_list"] = list(made.env_list)
    if made.caps is not None:
        document["caps_list"] = capabilities(made.caps)
    if made.point in ("create_container", "exec_external"):
        document["allow_stdio_access"] = made.allow_stdio_access
    if made.providers_to_keep is not None:
        document["providers_to_keep"] = list(made.providers_to_keep)
    if made.allowed_ledgers is not None:
        document["allowed_ledgers"] = list(made.allowed_ledgers)
    if made.point == "load_fragment":
        document["add_module"] = made.add_module
    return document


def capabilities(sets: Capabilities) -> dict[str, Json]:
    """The five sets."""
    return {name: list(getattr(sets, name)) for name in CAPABILITY_SETS}


FIELDS: Final = {
    "devices": "devices",
    "rw_devices": "rw_devices",
    "overlayTargets": "overlays",
    "matches": "matches",
    "started": "started",
    "p9mounts": "plan9_mounts",
    "scratch_mounts": "scratch_mounts",
}
"""The framework's own records: their names in ``data.metadata``, and the fields of ``State`` that they are."""


def record(state: State, name: str) -> Mapping[str, Any]:
    """One of the framework's records as it is in the state, always a mapping."""
    values = getattr(state, FIELDS[name])
    return dict.fromkeys(sorted(values), True) if name == "rw_devices" else values


def recorded(name: str, value: Any) -> Json:
    """A value of a record as a document."""
    match name:
        case "matches":
            return [container(one) for one in value]
        case "started":
            return {"privileged": value.privileged}
        case "scratch_mounts":
            return {"encrypted": value}
        case "overlayTargets":
            return True
    return value


def container(one: Container) -> dict[str, Json]:
    """As it stands in a policy of the current version."""
    document: dict[str, Json] = {
        "command": list(one.command),
        "env_rules": [_env_rule(rule) for rule in one.env_rules.rules],
        "layers": list(one.layers),
        "mounts": [mount(rule) for rule in one.mounts],
        "exec_processes": [
            {"command": list(process.command), "signals": sorted(process.signals)} for process in one.exec_processes
        ],
        "signals": sorted(one.signals),
        "allow_elevated": one.allow_elevated,
        "working_dir": one.working_dir,
        "allow_stdio_access": one.allow_stdio_access,
        "no_new_privileges": one.no_new_privileges,
        "user": {
            "user_idname": _id_name(one.user.user),
            "group_idnames": [_id_name(group) for group in one.user.groups],
            "umask": one.user.umask,
        },
        "capabilities": None if one.capabilities is None else capabilities(one.capabilities),
        "seccomp_profile_sha256": one.seccomp_profile_sha256,
    }
    labels = {"id": one.id, "name": one.name}
    return document | {key: label for key, label in labels.items() if label}


def mount(rule: MountRule) -> dict[str, Json]:
    """One allowed mount."""
    return {
        "destination": rule.destination,
        "source": rule.source,
        "type": rule.type,
        "options": list(rule.options),
    }


def plain(value: FrozenJson) -> Json:
    """A literal of a policy as JSON."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _env_rule(rule: EnvRule) -> dict[str, Json]:
    if rule.value is None:
        return {"pattern": rule.pattern.text, "strategy": rule.pattern.strategy, "required": rule.required}
    return {
        "name": rule.pattern.text,
        "name_strategy": rule.pattern.strategy,
        "value": rule.value.text,
        "value_strategy": rule.value.strategy,
        "required": rule.required,
    }


def _id_name(rule: IdName) -> dict[str, Json]:
    return {"pattern": rule.pattern, "strategy": rule.strategy}
