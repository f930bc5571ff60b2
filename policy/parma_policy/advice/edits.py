# SPDX-License-Identifier: Apache-2.0
"""The smallest change of a policy's text for each code of a denial, where the message or request says enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from parma_policy.lint.finding import Sheet
from parma_policy.model import Policy
from parma_policy.reader.syntax import Array, Document, Object, value_end

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A policy's text, and the denial that is to go away."""

    text: str
    sheet: Sheet
    point: str
    where: str

    @classmethod
    def of(cls, text: str, document: Document, policy: Policy, point: str, where: str) -> Place:
        """For the policy that this text is."""
        return cls(text, Sheet(document, policy), point, where)

    @property
    def container(self) -> str:
        """``containers[0]`` of a place in it."""
        return self.where.partition(".")[0]

    def replace(self, path: str, value: object) -> str | None:
        """The text with another value at a path that exists."""
        node = self.sheet.node(path)
        if not self._exists(path):
            return None
        return self.text[: node.offset] + json.dumps(value) + self.text[value_end(self.text, node.offset) :]

    def append(self, path: str, value: object) -> str | None:
        """The text with one more element in an array."""
        node = self.sheet.node(path)
        if not self._exists(path) or not isinstance(node.value, Array):
            return None
        if not node.value:
            return self.replace(path, [value])
        last = value_end(self.text, node.value.offsets[-1])
        return f"{self.text[:last]}, {json.dumps(value)}{self.text[last:]}"

    def put(self, path: str, name: str, value: object) -> str | None:
        """The text with a member of an object, changed or added."""
        node = self.sheet.node(path)
        if not self._exists(path) or not isinstance(node.value, Object) or not node.value:
            return None
        if name in node.value:
            return self.replace(f"{path}.{name}", value)
        at = node.offset + 1
        return f"{self.text[:at]}{json.dumps(name)}: {json.dumps(value)}, {self.text[at:].lstrip()}"

    def define(self, name: str, value: object) -> str:
        """The text with a definition at its top level, changed or added."""
        statement = self.sheet.document.statements.get(name)
        if statement is None:
            return f"{self.text.rstrip()}\n{name} := {json.dumps(value)}\n"
        end = value_end(self.text, statement.value_offset)
        return self.text[: statement.value_offset] + json.dumps(value) + self.text[end:]

    def _exists(self, path: str) -> bool:
        """Whether the path leads somewhere, and not only to what encloses it."""
        whole, parent = self.sheet.node(path), path.rpartition("[" if path.endswith("]") else ".")[0]
        return bool(parent) and whole.offset != self.sheet.node(parent).offset


def _command(place: Place, values: Values) -> str | None:
    if "command" not in values:
        return None
    if place.point == "exec_in_container":
        return place.append(f"{place.container}.exec_processes", {"command": values["command"], "signals": []})
    if place.point == "exec_external" and not place.where.startswith("external_processes["):
        return None
    return place.replace(f"{place.container}.command", values["command"])


def _member(member: str, name: str) -> Callable[[Place, Values], str | None]:
    def edit(place: Place, values: Values) -> str | None:
        return place.replace(f"{place.container}.{member}", values[name]) if name in values else None

    return edit


def _constant(member: str, value: object) -> Callable[[Place, Values], str | None]:
    return lambda place, _values: place.replace(f"{place.container}.{member}", value)


def _user(place: Place, values: Values) -> str | None:
    if "user" not in values:
        return None
    rule = {"pattern": values["user"]["id"], "strategy": "id"}
    return place.replace(f"{place.container}.user.user_idname", rule)


def _group(place: Place, values: Values) -> str | None:
    if "group" not in values:
        return None
    return place.append(f"{place.container}.user.group_idnames", {"pattern": values["group"]["id"], "strategy": "id"})


def _mounts(place: Place, values: Values) -> str | None:
    return place.append(f"{place.container}.mounts", values["mount"]) if "mount" in values else None


def _env(place: Place, values: Values) -> str | None:
    if not values.get("env"):
        return None
    rule = {"pattern": values["env"][0], "strategy": "string", "required": False}
    return place.append(f"{place.container}.env_rules", rule)


def _required(place: Place, _values: Values) -> str | None:
    return place.replace(f"{place.where}.required", value=False)


def _signal(place: Place, values: Values) -> str | None:
    return place.append(place.where, values["signal"]) if "signal" in values else None


def _provided_content(place: Place, values: Values) -> str | None:
    files = values.get("files")
    if not files:
        return None
    pins = {file["path"]: file["sha256"] for file in files}
    return place.put(place.where.removesuffix(".sha256"), "sha256", pins.get("") or pins)


def _provided_update(place: Place, _values: Values) -> str | None:
    return place.put(place.where.removesuffix(".updates"), "updates", value=True)


def _flag(place: Place, _values: Values) -> str | None:
    return place.define(place.where, value=True) if place.where else None


def _rule(place: Place, _values: Values) -> str | None:
    return f"{place.text.rstrip()}\n{place.point} := data.framework.{place.point}\n"


def _provider(place: Place, values: Values) -> str | None:
    if "provider" not in values:
        return None
    listed = place.sheet.policy.allowed_log_providers or ()
    return place.define("allowed_log_providers", [*listed, values["provider"]])


def _port(place: Place, values: Values) -> str | None:
    if "port" not in values:
        return None
    return place.define("forward_ports", sorted({*place.sheet.policy.forward_ports, values["port"]}))


_EDITS: Final[Mapping[str, Callable[[Place, Values], str | None]]] = MappingProxyType(
    {
        "command": _command,
        "working_dir": _member("working_dir", "working_dir"),
        "umask": _member("user.umask", "umask"),
        "seccomp": _member("seccomp_profile_sha256", "seccomp"),
        "capabilities": _member("capabilities", "capabilities"),
        "no_new_privileges": _constant("no_new_privileges", value=False),
        "privileged": _constant("allow_elevated", value=True),
        "user": _user,
        "group": _group,
        "mounts": _mounts,
        "env": _env,
        "env_required": _required,
        "signal": _signal,
        "flag": _flag,
        "unencrypted": _flag,
        "no_rule": _rule,
        "provider": _provider,
        "port": _port,
        "provided_content": _provided_content,
        "provided_update": _provided_update,
    }
)


def edited(place: Place, code: str, values: Values) -> str | None:
    """The policy's text with the change that this code calls for; None where not enough is known, or nothing helps."""
    edit = _EDITS.get(code)
    return edit(place, values) if edit else None
