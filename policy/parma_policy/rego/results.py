# SPDX-License-Identifier: Apache-2.0
"""What a policy's own rule says besides yes: which part of the request may stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parma_policy.framework import Decision
from parma_policy.model import CAPABILITY_SETS, Capabilities
from parma_policy.rego.engine import Json

_Lists = tuple[str, ...]


class _BadResultError(Exception):
    """A member of the answer that is not of its type."""


def read(point: str, answer: Mapping[str, Json], request: Mapping[str, object]) -> Decision | str:
    """The decision that an allowing answer makes, or what is wrong with the answer."""
    try:
        return _read(point, answer, request)
    except _BadResultError as error:
        return str(error)


def _read(point: str, answer: Mapping[str, Json], request: Mapping[str, object]) -> Decision:
    decision = Decision(allowed=True, point=point)
    match point:
        case "create_container":
            env, caps = _env(answer, request), _caps(answer, request)
            return Decision(True, point, env_list=env, caps=caps, allow_stdio_access=_stdio(answer))
        case "exec_in_container":
            return Decision(True, point, env_list=_env(answer, request), caps=_caps(answer, request))
        case "exec_external":
            return Decision(True, point, env_list=_env(answer, request), allow_stdio_access=_stdio(answer))
        case "log_provider":
            kept = _strings("providers_to_keep", answer.get("providers_to_keep"))
            return decision if kept is None else Decision(True, point, providers_to_keep=kept)
        case "load_transparency_trust_list":
            ledgers = _strings("allowed_ledgers", answer.get("allowed_ledgers")) or ()
            return Decision(True, point, allowed_ledgers=_common(request.get("ledgers"), ledgers))
    return decision


def _stdio(answer: Mapping[str, Json]) -> bool:
    value = answer["allow_stdio_access"]
    if not isinstance(value, bool):
        raise _BadResultError("value for 'allow_stdio_access' is not a boolean")
    return value


def _env(answer: Mapping[str, Json], request: Mapping[str, object]) -> _Lists | None:
    kept = _strings("env_list", answer.get("env_list"))
    return None if kept is None else _common(request["envList"], kept)


def _caps(answer: Mapping[str, Json], request: Mapping[str, object]) -> Capabilities | None:
    given = answer.get("caps_list")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise _BadResultError("caps_list is not an object of lists")
    requested = request["capabilities"]
    sets = []
    for name in CAPABILITY_SETS:
        kept = _strings(f"caps_list.{name}", given.get(name))
        if kept is None:
            raise _BadResultError(f"caps_list.{name} is missing")
        asked = requested.get(name) if isinstance(requested, Mapping) else getattr(requested, name)
        sets.append(_common(asked, kept))
    return Capabilities(*sets)


def _strings(name: str, value: Json) -> _Lists | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _BadResultError(f"{name} is not a list")
    if not all(isinstance(item, str) for item in value):
        raise _BadResultError(f"members of {name} are not all strings")
    return tuple(value)


def _common(requested: object, kept: _Lists) -> _Lists:
    """What was asked for and may stay, in the order asked for: an answer never adds anything."""
    allowed = frozenset(kept)
    return tuple(item for item in requested if item in allowed) if isinstance(requested, Iterable) else ()
