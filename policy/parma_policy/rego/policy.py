# SPDX-License-Identifier: Apache-2.0
"""Loading a policy with rules of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from parma_policy.framework import GUEST, Platform
from parma_policy.points import POINTS
from parma_policy.reader.errors import Source
from parma_policy.reader.policy import DATA, build, decode
from parma_policy.reader.syntax import Array, Document, Object, Statement, Value
from parma_policy.rego import documents
from parma_policy.rego.decide import RegoPolicy
from parma_policy.rego.engine import Answer, Definition, Engine, EvaluationFailed, Json, Modules
from parma_wire.errors import Malformed

_NEVER: Final = ("permissive",)
"""Switches that are for policies without rules of their own only."""


def load(data: bytes, engine: Engine, *, parity: bool = False, platform: Platform = GUEST) -> RegoPolicy:
    """Reads a policy with rules of its own; what it defines as data means what it means in any policy.

    Raises Malformed where the engine refuses the text, or the data are not what a policy has; EngineFailed where there
    is no engine.
    """
    text = decode(data)
    modules: Modules = (("policy", text),)
    loaded = engine.load(modules, "policy", documents.constants(platform))
    if not loaded.definitions and not parity:
        raise Malformed("the policy defines nothing", expected="package policy")
    values = _data(engine, modules, loaded.definitions, parity=parity)
    document = Document(Source(text), "policy", {name: _statement(name, value) for name, value in values.items()})
    rules = frozenset(name for name in POINTS if loaded.definitions.get(name) == Definition("framework", name))
    policy = build(document, hashlib.sha256(data).digest(), rules, parity=parity)
    return RegoPolicy(engine, text, policy, loaded.definitions, reads_metadata=loaded.reads_metadata, platform=platform)


def _data(engine: Engine, modules: Modules, definitions: Mapping[str, Definition], *, parity: bool) -> dict[str, Json]:
    """The values of the policy's data. Data are what they are: they do not depend on requests."""
    values = {}
    for name in DATA:
        definition = definitions.get(name)
        if definition is None:
            continue
        if name in _NEVER and not parity:
            raise Malformed(f"a policy with rules of its own cannot say {name!r}")
        if definition.kind != "constant":
            raise Malformed(f"{name} depends on more than the policy's text", expected="data, or rules over data")
        try:
            found = engine.query(modules, f"policy.{name}", {}, _nothing_to_ask, None)
        except EvaluationFailed as error:
            raise Malformed(f"{name}: {error.message}") from None
        if found is not None:
            values[name] = found.value
    return values


def _nothing_to_ask(name: str, _document: Json) -> Answer:
    return Answer(refused=f"data.framework.{name} is not known yet")


def _statement(name: str, value: Json) -> Statement:
    return Statement(name, _placed(value), 0, 0)


def _placed(value: Json) -> Value:
    """A value that stands at the start of the text: where the engine has it from is not known."""
    if isinstance(value, list):
        array = Array()
        array.extend(map(_placed, value))
        array.offsets = [0] * len(array)
        return array
    if isinstance(value, dict):
        members = Object()
        members.update({key: _placed(item) for key, item in value.items()})
        members.offsets = dict.fromkeys(members, 0)
        return members
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 and 1 are one number in Rego
    return value  # type: ignore[no-any-return]
