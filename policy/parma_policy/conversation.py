# SPDX-License-Identifier: Apache-2.0
"""Conversations with an enforcer as text: recorded by a permissive guest, written by hand, or from somewhere else.

Two forms are read. *JSON Lines*: one step to a line, ``{"call", "input"}`` with an optional ``"expect"``; lines that
are empty or begin with ``#`` do not count; the first line may be a header (``"format": "parma-conversation/1"``) and
the last one a footer (``{"dropped": N}``: steps that a recorder had no room for). *One JSON object* with ``steps``, the
form in which recordings of the reference enforcer are published, which has its policy in ``policy_rego``.

A call is an enforcement point, or ``transaction_begin``, ``transaction_commit``, ``transaction_rollback``, or
``extend_default_mounts``. What is expected: ``allowed``, and optionally ``code`` (of the first reason), ``error_kind``,
``reasons`` (topics, of which one must occur), ``env``, ``caps``, ``allow_stdio_access``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parma_policy.framework import GUEST, Platform
from parma_policy.model import MountRule
from parma_policy.patterns import PatternCache
from parma_wire.errors import Malformed

FORMAT: Final = "parma-conversation/1"
MAX_BYTES: Final = 64 << 20
MAX_STEPS: Final = 100_000

TRANSACTIONS: Final = ("transaction_begin", "transaction_commit", "transaction_rollback")

_EXPECTED: Final = {
    "allowed": bool,
    "code": str,
    "error_kind": str,
    "reasons": list,
    "env": list,
    "caps": dict,
    "allow_stdio_access": bool,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One request. ``line``: where it stands, from 1; in the one-object form the number of the step."""

    line: int
    call: str
    input: Mapping[str, Any]
    expect: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole conversation."""

    steps: tuple[Step, ...]
    policy: bytes | None = None
    """The policy's text, where the conversation comes with it."""
    policy_sha256: str = ""
    """In hex, of the policy that it was recorded with, where it says so."""
    dropped: int = 0
    """Steps that the recorder left out at the end."""
    platform: Platform = GUEST


def parse(data: bytes) -> Conversation:
    """Reads either form. Raises Malformed with the line."""
    if len(data) > MAX_BYTES:
        raise Malformed("the conversation is too large", expected=f"at most {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"the conversation is not UTF-8 text: bad byte at offset {error.start}") from None
    whole = _whole(text)
    return _document(whole) if whole is not None else _lines(text)


def _whole(text: str) -> Mapping[str, Any] | None:
    """The text as one object with steps, if that is what it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "steps" in value else None


def _document(document: Mapping[str, Any]) -> Conversation:
    steps, rego = document["steps"], document.get("policy_rego")
    if not isinstance(steps, list) or not isinstance(rego, str | None):
        raise Malformed("the recording's steps or policy_rego have the wrong type", expected="a list, a string")
    if document.get("os") not in (None, "linux"):
        raise Malformed("the recording was made with another operating system", expected="linux")
    platform = Platform(
        tuple(map(mount_rule, _list(document, "default_mounts"))),
        tuple(map(mount_rule, _list(document, "privileged_mounts"))),
    )
    read = tuple(_step(number, value) for number, value in enumerate(steps, 1))
    return Conversation(read, None if rego is None else rego.encode(), platform=platform)


def _lines(text: str) -> Conversation:
    steps: list[Step] = []
    header: Mapping[str, Any] = {}
    dropped: int | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        value = _value(number, line)
        if dropped is not None:
            raise Malformed(f"line {number}: something stands behind the last line")
        if "format" in value:
            if steps or header or value["format"] != FORMAT:
                raise Malformed(f"line {number}: unexpected header", expected=f"{FORMAT!r}, in the first line")
            header = value
        elif "dropped" in value:
            dropped = _count(number, value["dropped"])
        else:
            if len(steps) == MAX_STEPS:
                raise Malformed(f"line {number}: too many steps", expected=f"at most {MAX_STEPS}")
            steps.append(_step(number, value))
    digest = header.get("policy_sha256", "")
    if not isinstance(digest, str):
        raise Malformed("policy_sha256 in the header is no string")
    return Conversation(tuple(steps), policy_sha256=digest, dropped=dropped or 0)


def _value(number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Malformed(f"line {number} is no JSON object", expected='one like {"call": ..., "input": {...}}')
    return value


def _step(number: int, value: object) -> Step:
    if not isinstance(value, dict) or not value.keys() <= {"call", "input", "expect", "note"}:
        raise Malformed(f"step {number} is none", expected="an object with call, input and perhaps expect and note")
    call, given, expect = value.get("call"), value.get("input"), value.get("expect")
    if not isinstance(call, str) or not isinstance(given, dict):
        raise Malformed(f"step {number}: call or input is missing or of the wrong type")
    if expect is not None and not isinstance(expect, dict):
        raise Malformed(f"step {number}: expect is no object")
    for name, kind in _EXPECTED.items():
        if expect and expect.get(name) is not None and not isinstance(expect[name], kind):
            raise Malformed(f"step {number}: {name} of expect has the wrong type", expected=kind.__name__)
    return Step(number, call, given, expect)


def _count(number: int, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed(f"line {number}: dropped is no number")
    return value


def _list(document: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = document.get(name)
    if not isinstance(value, list | None):
        raise Malformed(f"the recording's {name} is no list")
    return value or ()


def mount_rule(mount: object) -> MountRule:
    """A mount that the platform allows to every container. Raises Malformed."""
    match mount:
        case {"destination": str(destination), "source": str(source), "type": str(kind), "options": given}:
            options = given or ()
        case _:
            raise Malformed("a default mount is none", expected="destination, source, type and options")
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise Malformed("a default mount's options are no strings")
    prefix, separator, rest = source.partition("://")
    tail = PatternCache().make(rest, "re2") if separator and prefix in ("sandbox", "hugepages") else None
    return MountRule(destination, source, kind, tuple(options), tail)


def dump(steps: Sequence[Step], *, policy_sha256: str = "") -> str:
    """The steps as JSON Lines with a header."""
    header: dict[str, object] = {"format": FORMAT}
    if policy_sha256:
        header["policy_sha256"] = policy_sha256
    lines = [header]
    for step in steps:
        line: dict[str, object] = {"call": step.call, "input": dict(step.input)}
        if step.expect is not None:
            line["expect"] = dict(step.expect)
        lines.append(line)
    return "".join(f"{json.dumps(line)}\n" for line in lines)
