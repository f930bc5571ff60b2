# SPDX-License-Identifier: Apache-2.0
"""Denials as users see them, read back: ours, the reference enforcer's, and recorded requests.

*Ours* is the line that ``framework.Decision.message`` makes, anywhere in what containerd and its clients put around it.
*The reference enforcer's* has ``policyDecision< BASE64 >policyDecision``: JSON with the request, as far as it fit, and
the reasons. *A request* is a step of a conversation, ``{"call", "input"}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from parma_policy.framework.codes import CODES
from parma_policy.points import ASKED
from parma_wire.errors import Malformed

MAX_TEXT: Final = 1 << 20

_PLACE: Final = r"[A-Za-z_]\w*(?:\.\w+|\[\d+\])*"
_OURS: Final = re.compile(
    rf"(?P<point>[a-z_0-9]+) (?:would be )?denied: (?P<body>.*?)"
    rf" \[(?P<code>[a-z_]+)(?: at (?P<where>{_PLACE}(?:, {_PLACE})*))?\]",
    re.ASCII | re.DOTALL,
)
_THEIRS: Final = re.compile(r"policyDecision<\s*([A-Za-z0-9+/=\s]+?)\s*>policyDecision")
_GOT: Final = re.compile(r"(?:, |: )got (.*?)(?:; to allow it, |$)", re.DOTALL)
_MOUNT: Final = re.compile(
    r"(?P<type>\S*) of (?P<source>\"(?:[^\"\\]|\\.)*\") with options (?P<options>\[.*\])", re.DOTALL
)
_MOUNT_AT: Final = re.compile(r"mount at (\"(?:[^\"\\]|\\.)*\")")
_ID: Final = re.compile(r"(?P<id>\d+)(?: \"(?P<name>.*)\")?")
_REDACTED: Final = "<<redacted>>"


@dataclass(frozen=True, slots=True)
class Denial:
    """One denial: what the enforcer said, or the request to say it about again."""

    point: str
    code: str = ""
    where: str = ""
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, as far as the message shows it: ``command``, ``working_dir``, ``mount``, ``signal``, ..."""
    request: Mapping[str, Any] | None = None
    """The whole request, where it is known."""
    topics: tuple[str, ...] = ()
    """The reference enforcer's reasons."""


def read(text: str) -> Denial:
    """Reads a denial in any of the three forms. Raises Malformed."""
    theirs = _THEIRS.search(text)
    if theirs:
        return _reference(theirs[1])
    ours = _OURS.search(text)
    if ours and ours["point"] in ASKED and ours["code"] in CODES:
        where = (ours["where"] or "").partition(",")[0]
        values = _values(ours["code"], ours["body"])
        return Denial(ours["point"], ours["code"], where, ours[0], values)
    request = _request(text)
    if request is not None:
        return request
    raise Malformed(
        "there is no denial in this text",
        expected="a line like 'create_container denied: ... [command at containers[0].command]'",
        hint="copy the whole message; the code in brackets at its end matters",
    )


def _request(text: str) -> Denial | None:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("call") in ASKED and isinstance(value.get("input"), dict):
            return Denial(value["call"], request=value["input"])
    return None


def _reference(encoded: str) -> Denial:
    try:
        document = json.loads(base64.b64decode("".join(encoded.split()), validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise Malformed("the decision in the message is damaged, or cut off") from None
    if not isinstance(document, dict):
        raise Malformed("the decision in the message is no object")
    reason, given = document.get("reason"), document.get("input")
    errors = reason.get("errors") if isinstance(reason, dict) else [reason] if isinstance(reason, str) else []
    topics = tuple(error for error in errors or () if isinstance(error, str))
    if not isinstance(given, dict) or given.get("rule") not in ASKED:
        return Denial("", topics=topics, message="; ".join(topics))
    request = {key: value for key, value in given.items() if key != "rule"}
    return Denial(given["rule"], topics=topics, message="; ".join(topics), request=request)


def redacted(variable: str) -> bool:
    """Whether the reference enforcer left out this variable's value."""
    return variable.endswith(_REDACTED)


def mount_destination(text: str) -> str:
    """Where the mount that a reason is about would be; empty where it is about none."""
    at = _MOUNT_AT.search(text)
    try:
        return str(json.loads(at[1])) if at else ""
    except ValueError:  # shortened
        return ""


def _values(code: str, body: str) -> dict[str, Any]:
    """What was asked for, from the text of one of our messages. What it does not show is absent."""
    got = _GOT.search(body)
    shown = got[1] if got else ""
    match code:
        case "command":
            return _json_value("command", shown, list)
        case "working_dir":
            return _json_value("working_dir", shown, str)
        case "umask":
            return _json_value("umask", shown, str)
        case "signal":
            return {"signal": int(shown)} if shown.isdigit() else {}
        case "port":
            return {"port": int(shown)} if shown.isdigit() else {}
        case "seccomp":
            digest = shown.removeprefix("SHA-256 ")
            return {"seccomp": "" if shown == "no profile" else digest} if shown else {}
        case "user" | "group":
            found = _ID.fullmatch(shown)
            return {code: {"id": found["id"], "name": found["name"] or ""}} if found else {}
        case "env":
            return _variables(shown)
        case "mounts":
            return _mount(body, shown)
        case _:
            return {}


def _json_value(name: str, shown: str, kind: type) -> dict[str, Any]:
    try:
        value = json.loads(shown)
    except ValueError:
        return {}
    return {name: value} if isinstance(value, kind) else {}


def _variables(shown: str) -> dict[str, Any]:
    try:
        listed = json.loads(f"[{shown.removesuffix(' and more')}]")
    except ValueError:
        return {}
    whole = [variable for variable in listed if isinstance(variable, str) and "=" in variable]
    return {"env": whole, "names": [str(variable).partition("=")[0] for variable in listed]}


def _mount(body: str, shown: str) -> dict[str, Any]:
    destination, rest = mount_destination(body), _MOUNT.fullmatch(shown)
    if not destination or not rest:
        return {}
    try:
        return {
            "mount": {
                "destination": destination,
                "source": json.loads(rest["source"]),
                "type": rest["type"],
                "options": json.loads(rest["options"]),
            }
        }
    except ValueError:
        return {}
