# SPDX-License-Identifier: Apache-2.0
"""Writes the reference pages that follow from tables in the code: enforcement points, reasons, strictness, lint rules.

Usage: ``python tools/genreference.py``. Tests compare the pages with what this makes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from parma_policy import requests
from parma_policy.framework.codes import CODES
from parma_policy.framework.permissive import FORCED
from parma_policy.lint import RULES
from parma_policy.points import OWN_POINTS, POINTS, Default, EnforcementPoint
from parma_policy.requests import Schema
from parma_policy.strictness import STRICTER
from parma_policy.versions import API_VERSION, FRAMEWORK_VERSION

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_NOTICE: Final = "<!-- Made by tools/genreference.py from the code; change it there. -->"

_TYPES: Final[dict[Any, str]] = {
    requests.text: "string",
    requests.flag: "true or false",
    requests.number: "whole number",
    requests.optional_number: "whole number or null",
    requests.texts: "list of strings",
    requests.devices: "list of devices",
}
_DEFAULTS: Final = {
    Default.ALLOW: "allowed",
    Default.DENY: "denied",
    Default.FRAMEWORK: "decided as if it had the rule",
}
_RESULTS: Final = {
    "env_list": "the environment variables that may be kept",
    "caps": "the capabilities that may be kept",
    "allow_stdio_access": "whether the host has the process's streams",
    "attestation": "what of attestation the container may reach",
    "identity": "what keys derived for the container are bound to",
    "add_module": "whether the fragment's package is kept (`namespace`)",
    "providers_to_keep": "the sources that may be kept",
    "allowed_ledgers": "the ledgers that may be kept",
}


def _type(decoder: Callable[[object, str], Any]) -> str:
    if isinstance(decoder, functools.partial):
        return f"list of {_object(decoder.args[0])}"
    schema = getattr(decoder, "__self__", None)
    return _object(schema) if isinstance(schema, Schema) else _TYPES[decoder]


def _object(schema: Schema) -> str:
    return "{" + ", ".join(key for key, _ in schema.members) + "}"


def _point(point: EnforcementPoint) -> Iterator[str]:
    yield f"## {point.name}"
    yield ""
    yield f"Allowed: {point.rule}"
    yield ""
    if point.name in OWN_POINTS:
        yield "* Asked by Parma's guest only, whatever the policy's API; no policy has a rule for it."
    else:
        default = _DEFAULTS[point.default]
        yield f"* Since API {point.introduced}. A policy that is older and has no rule for it: {default}."
    members = [f"`{key}` ({_type(decoder)})" for key, decoder in point.schema.members]
    members += [f"`{key}` (may be left out)" for key in point.schema.constants]
    if point.linux:
        yield f"* Input: {', '.join(members) or 'nothing'}."
    if point.results:
        yield f"* Result: {'; '.join(f'`{name}`, {_RESULTS[name]}' for name in point.results)}."
    yield f"* State: {', '.join(f'`{name}`' for name in point.changes) or 'unchanged'}."
    codes = [code for code, entry in CODES.items() if point.name in entry.points]
    if codes:
        yield f"* Reasons: {', '.join(f'[{code}](reasons.md#{code})' for code in codes)}."
    if point.linux:
        yield f"* Permissive: {'allowed and recorded' if point.name in FORCED else 'enforced all the same'}."
    yield ""


def enforcement_points() -> str:
    """docs/enforcement-points.md."""
    lines = [
        "# Enforcement points",
        "",
        _NOTICE,
        "",
        f"Each kind of request of the host, as the framework {FRAMEWORK_VERSION} with API {API_VERSION} decides it. A",
        "policy hands a point to the framework with the line `NAME := data.framework.NAME`. A policy whose",
        "`api_version` knows a point but that has no rule for it is in error: the request is denied.",
        "",
        "Input of another shape is no question to the policy: it is malformed (INVALID_ARGUMENT), not denied",
        "(PERMISSION_DENIED). A denied request leaves the state as it was; so does an allowed one whose side effect",
        "fails.",
        "",
        "| point | since | without a rule in an older policy |",
        "| --- | --- | --- |",
        *(f"| [{p.name}](#{p.name}) | {p.introduced} | {_DEFAULTS[p.default]} |" for p in POINTS.values()),
        *(f"| [{name}](#{name}) | Parma's own | the framework decides |" for name in OWN_POINTS),
        "",
    ]
    for point in (*POINTS.values(), *OWN_POINTS.values()):
        lines += _point(point)
    return "\n".join(lines)


def reasons() -> str:
    """docs/reasons.md."""
    lines = [
        "# Reasons",
        "",
        _NOTICE,
        "",
        "A denial reads",
        "",
        "    POINT denied: WHAT IS WRONG: expected ..., got ...; to allow it, ... would have to ... [CODE at PLACE]",
        "",
        "It is about the first rule that fails, for the container of the policy that came closest. PLACE is in the",
        "policy, as in `containers[0].command[2]`. The text is the same from the guest and from",
        "`parma policy simulate`; `parma policy explain` takes it and shows what to edit.",
        "",
        "Arguments of commands and values of environment variables may be secrets, and denials end up in logs. They",
        "are shown only where the policy itself says so, and what it says is attested with it:",
        "",
        "    denials_show_arguments := true",
        "    denials_show_environment := true",
        "",
        "Otherwise a denial shows the program, the number of arguments and which one differs, and names of variables.",
        "",
        "Codes are stable: none ever changes its meaning. The topics are the reference enforcer's words, which",
        "`reason.errors` in its denials has.",
        "",
    ]
    for name, code in CODES.items():
        lines += [
            f"## {name}",
            "",
            code.meaning,
            "",
            f"* At: {', '.join(code.points)}.",
            f"* To allow it: {code.remedy}",
            *([f"* Topics: {code.topic}."] if code.topic else []),
            "",
        ]
    return "\n".join(lines)


def strictness() -> str:
    """docs/strictness.md."""
    lines = [
        "# Stricter than the reference",
        "",
        _NOTICE,
        "",
        "Where Parma refuses what the reference enforcer accepts, on purpose. It never allows what that denies. `parma",
        "policy simulate --parity` decides without these differences; a guest never does.",
        "",
        "| name | what |",
        "| --- | --- |",
        *(f"| `{name}` | {text} |" for name, text in STRICTER.items()),
        "",
    ]
    return "\n".join(lines)


def lint_rules() -> str:
    """docs/lint.md."""
    lines = [
        "# What `parma policy lint` finds",
        "",
        _NOTICE,
        "",
        "Each finding has a rule's id, a place (line and column) and a severity: *error*, *warning* or *info*. Ids are",
        "stable. `--ignore RULE` leaves a rule out, `--fail-on` says from which severity on the exit status is 1.",
        "",
        "| rule | what it finds |",
        "| --- | --- |",
        *(f"| `{name}` | {text} |" for name, text in RULES.items()),
        "",
    ]
    return "\n".join(lines)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "enforcement-points.md": enforcement_points,
    "reasons.md": reasons,
    "strictness.md": strictness,
    "lint.md": lint_rules,
}
"""File below ``docs/`` and the function that makes its text."""


def main() -> int:
    """Writes every page."""
    for name, make in PAGES.items():
        (DOCS / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
