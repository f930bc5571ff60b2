# SPDX-License-Identifier: Apache-2.0
"""``parma policy lint``: what a policy probably does not mean."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.commands.files import read_policy

_LEVELS = ("error", "warning", "info", "never")


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "lint",
        help="find what a policy probably does not mean",
        description="Prints a line a finding: place, severity, text and the rule's id. Exit status: 0; 1 when there "
        "is a finding as bad as --fail-on says.",
    )
    parser.add_argument("file", type=Path, nargs="?", help="the policy; - for standard input")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--fail-on", choices=_LEVELS, default="warning", help="(default: %(default)s)")
    parser.add_argument("--ignore", action="append", default=[], metavar="RULE", help="leave out findings of a rule")
    parser.add_argument("--rules", action="store_true", help="list the rules and end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings."""
    from parma_policy.lint import RULES, Severity, lint
    from parma_wire.errors import Malformed

    if arguments.rules:
        sys.stdout.write("".join(f"{name:<20} {text}\n" for name, text in RULES.items()))
        return 0
    unknown = [name for name in arguments.ignore if name not in RULES]
    if unknown or arguments.file is None:
        raise Malformed(
            f"there is no rule {unknown[0]!r}" if unknown else "no policy is given",
            hint="see parma policy lint --rules" if unknown else "",
            expected="" if unknown else "a file, or - for standard input",
        )
    found = [finding for finding in lint(read_policy(arguments.file)) if finding.rule not in arguments.ignore]
    if arguments.json:
        sys.stdout.write(json.dumps([_json(finding) for finding in found], indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{arguments.file}:{finding}\n" for finding in found))
    if arguments.fail_on == "never":
        return 0
    return int(any(finding.severity >= Severity[arguments.fail_on.upper()] for finding in found))


def _json(finding: Any) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.name.lower(),
        "line": finding.line,
        "column": finding.column,
        "path": finding.path,
        "message": finding.message,
    }
