# SPDX-License-Identifier: Apache-2.0
"""``data.metadata``: what a policy's rules record, and how their answers change it.

An answer carries a list of operations ``{"name", "action", "key", "value", "type"}``. Some names are the framework's
own: they are fields of its ``State``, and an operation on them changes those. All others are the policy's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from parma_policy.framework import State
from parma_policy.framework.state import Overlay, Started, with_item, without
from parma_policy.model import Container
from parma_policy.rego import documents
from parma_policy.rego.engine import Json
from parma_policy.requests import MountOverlay

UNREADABLE: Final = ("issuers", "fragment_parameters")
"""Names of the framework that rules can neither read nor change: fragments are kept in another shape here."""


class BadOperationError(Exception):
    """An operation that cannot be applied, in words; ``state`` is what the operations before it have led to."""

    def __init__(self, message: str, state: Metadata | None = None) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True, slots=True)
class Metadata:
    """All that was recorded."""

    framework: State = field(default_factory=State.initial)
    own: Mapping[str, Mapping[str, Json] | tuple[Json, ...]] = field(
        default_factory=lambda: MappingProxyType(dict(documents.OSTYPE))
    )
    """The policy's records by name: maps, and sets as tuples."""
    touched: frozenset[str] = frozenset()
    """Names of the framework that have had something in them: they stay, empty."""

    def document(self) -> dict[str, Json]:
        """``data.metadata``."""
        found: dict[str, Json] = {
            name: list(record) if isinstance(record, tuple) else dict(record) for name, record in self.own.items()
        }
        for name in documents.FIELDS:
            values = documents.record(self.framework, name)
            if values or name in self.touched:
                found[name] = {key: documents.recorded(name, value) for key, value in values.items()}
        return found

    def after_framework(self, after: State) -> Metadata:
        """When the framework itself has decided."""
        names = {name for name, attribute in documents.FIELDS.items() if getattr(after, attribute)}
        return replace(self, framework=after, touched=self.touched | names)


def operations(before: State, after: State) -> list[Json]:
    """The framework's change of its state, as the reference's framework would describe it."""
    found: list[Json] = []
    for name in documents.FIELDS:
        old, new = documents.record(before, name), documents.record(after, name)
        found += [_operation(name, "remove", key) for key in old if key not in new]
        for key, value in new.items():
            if key not in old:
                found.append(_operation(name, "add", key, documents.recorded(name, value)))
            elif old[key] is not value and documents.recorded(name, old[key]) != documents.recorded(name, value):
                found.append(_operation(name, "update", key, documents.recorded(name, value)))
    for fragment in after.fragments[len(before.fragments) :][:1]:
        # However many there are: they come from one text, with different parameters.
        found.append(_operation("issuers", "update", fragment.issuer, {"feeds": [fragment.feed]}))
    return found


def _operation(name: str, action: str, key: str, value: Json = None) -> dict[str, Json]:
    operation = {"name": name, "action": action, "key": key}
    return operation if action == "remove" else {**operation, "value": value}


@dataclass(slots=True)
class Applier:
    """Applies the operations of one answer. ``told`` are states that the framework has led to in this evaluation."""

    request: object
    told: list[State]

    def apply(self, metadata: Metadata, given: Json) -> Metadata:
        """The metadata after all operations. Raises BadOperationError."""
        if given is None:
            return metadata
        if not isinstance(given, list):
            raise BadOperationError("metadata is not a list of operations", metadata)
        checked = [_checked(operation, metadata) for operation in given]
        for operation in checked:
            try:
                metadata = self._one(metadata, operation)
            except BadOperationError as error:
                raise BadOperationError(str(error), metadata) from None
        return metadata

    def _one(self, metadata: Metadata, operation: Operation) -> Metadata:
        if operation.name == "issuers":
            return self._fragments(metadata, operation)
        if operation.name in UNREADABLE:
            raise BadOperationError(f"{operation.name} belongs to the framework")
        if operation.name in documents.FIELDS:
            if operation.type != "map":
                raise BadOperationError(f"{operation.name} is a map")
            after = self._native(metadata.framework, operation)
            return replace(metadata, framework=after, touched=metadata.touched | {operation.name})
        own = {**metadata.own, operation.name: _changed(metadata.own.get(operation.name), operation)}
        return replace(metadata, own=MappingProxyType(own))

    def _fragments(self, metadata: Metadata, operation: Operation) -> Metadata:
        """A loaded fragment is taken as the framework has read it, or not at all."""
        for after in self.told:
            mine = [one for one in operations(metadata.framework, after) if one["name"] == "issuers"]
            if any(one["key"] == operation.key and one["value"] == operation.value for one in mine):
                return metadata.after_framework(replace(metadata.framework, fragments=after.fragments))
        raise BadOperationError("issuers belongs to the framework")

    def _native(self, state: State, operation: Operation) -> State:
        name, key = operation.name, operation.key
        present = key in documents.record(state, name)
        if operation.action == "add" and present:
            raise _exists(operation)
        if operation.action == "remove":
            return _removed(state, name, key) if present else state
        if name == "rw_devices":
            return replace(state, rw_devices=state.rw_devices | {key})
        value = self._value(state, operation)
        attribute = documents.FIELDS[name]
        return replace(state, **{attribute: with_item(getattr(state, attribute), key, value)})  # type: ignore[arg-type]

    def _value(self, state: State, operation: Operation) -> object:
        key, value = operation.key, operation.value
        match operation.name, value:
            case (("devices" | "p9mounts"), str()):
                return value
            case "scratch_mounts", {"encrypted": bool(encrypted)}:
                return encrypted
            case "started", {"privileged": bool(privileged)}:
                before = state.started.get(key)
                return replace(before, privileged=privileged) if before else Started(privileged, False)
            case "overlayTargets", _:
                mounted = self.request if isinstance(self.request, MountOverlay) else None
                if mounted is not None and mounted.target == key:
                    return Overlay(mounted.container_id, mounted.layer_paths)
                return Overlay("", ())
            case "matches", list():
                return self._containers(state, value)
        raise BadOperationError(f"{operation.name} cannot hold such a value")

    def _containers(self, state: State, given: list[Json]) -> tuple[Container, ...]:
        """Containers are recognised, not read: those that the framework has named, or that ids match already."""
        known: dict[str, Container] = {}
        for source in (state, *self.told):
            for containers in source.matches.values():
                known |= {_canonical(documents.container(one)): one for one in containers}
        try:
            return tuple(known[_canonical(one)] for one in given)
        except KeyError:
            raise BadOperationError("matches can only hold containers of the policy") from None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation whose shape is right."""

    name: str
    action: str
    type: str
    key: str
    value: Json


def _checked(given: Json, metadata: Metadata) -> Operation:
    members = given if isinstance(given, dict) else {}
    name, action, kind = members.get("name"), members.get("action"), members.get("type", "map")
    key = members.get("key", "" if kind == "set" else None)
    if not isinstance(name, str) or not isinstance(action, str) or not isinstance(key, str):
        raise BadOperationError("a metadata operation lacks its name, action or key", metadata)
    if kind not in ("map", "set"):
        raise BadOperationError(f"unrecognized metadata type: {str(kind)[:40]}", metadata)
    if "value" not in members and (action != "remove" or kind == "set"):
        raise BadOperationError("missing metadata value", metadata)
    if action not in (("add", "update", "remove") if kind == "map" else ("add", "remove")):
        raise BadOperationError(f"unrecognized metadata action: {action[:40]} for {kind}", metadata)
    return Operation(name, action, kind, key, members.get("value"))


def _changed(record: Mapping[str, Json] | tuple[Json, ...] | None, operation: Operation) -> Json:
    """One of the policy's records after an operation."""
    if operation.type == "set":
        if record is not None and not isinstance(record, tuple):
            raise BadOperationError(f"{operation.name} is a map")
        others = tuple(one for one in record or () if _canonical(one) != _canonical(operation.value))
        return (*others, operation.value) if operation.action == "add" else others
    if isinstance(record, tuple):
        raise BadOperationError(f"{operation.name} is a set")
    values = record or MappingProxyType({})
    if operation.action == "remove":
        return without(values, operation.key)
    if operation.action == "add" and operation.key in values:
        raise _exists(operation)
    return with_item(values, operation.key, operation.value)


def _removed(state: State, name: str, key: str) -> State:
    if name == "rw_devices":
        return replace(state, rw_devices=state.rw_devices - {key})
    attribute = documents.FIELDS[name]
    after = replace(state, **{attribute: without(getattr(state, attribute), key)})  # type: ignore[arg-type]
    ended = state.started.get(key)
    if name == "matches" and ended is not None:
        # The reference knows a container that was shut down by having started and matching nothing.
        return replace(after, started=with_item(after.started, key, replace(ended, shut_down=True)))
    return after


def _exists(operation: Operation) -> BadOperationError:
    return BadOperationError(f"cannot add metadata value, key {operation.name}[{operation.key}] already exists")


def _canonical(value: Json) -> str:
    return json.dumps(value, sort_keys=True)
