# SPDX-License-Identifier: Apache-2.0
"""``parma policy explain``: what a denial means, and what would have to change in the policy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_policy.commands.files import read_file, read_policy, write_file
from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_policy.advice import Advice


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "explain",
        help="say what a denial means and what to change in the policy",
        description="Takes the message that a user saw, also of the reference enforcer, or a recorded request, and "
        "says which rule of the policy failed, where it stands, and what to change; with the change as a diff where "
        "the message says enough. Exit status: 0; 1 when no change can be suggested.",
    )
    parser.add_argument("policy", type=Path, help="the policy")
    parser.add_argument("denial", nargs="?", default="-", help="the message itself; - (default) for standard input")
    parser.add_argument("--file", type=Path, metavar="FILE", help="a file with the message or request")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the changed policy")
    parser.add_argument("--json", action="store_true", help="print an object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the advice."""
    from parma_policy.advice import advise

    advice = advise(read_policy(arguments.policy), _text(arguments))
    if arguments.out is not None:
        if advice.text is None:
            raise Malformed("there is no change to write", hint="see the explanation without --out")
        write_file(arguments.out, advice.text.encode())
    if arguments.json:
        sys.stdout.write(json.dumps(advice.as_json(), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(arguments.policy, advice)))
    return int(advice.text is None and bool(advice.codes))


def _text(arguments: argparse.Namespace) -> str:
    from parma_policy.advice.denial import MAX_TEXT

    if arguments.file is None and arguments.denial != "-":
        return str(arguments.denial)
    return read_file(arguments.file or Path("-"), MAX_TEXT).decode("utf-8", "replace")


def _lines(path: Path, advice: Advice) -> Iterator[str]:
    from parma_policy.framework.codes import CODES

    if not advice.codes:
        yield "This policy does not deny it: is it the policy that the VM was started with?"
        return
    yield advice.message
    for code in advice.codes:
        yield ""
        yield f"{code}: {CODES[code].meaning}"
        yield f"  To allow it: {CODES[code].remedy}"
    if advice.where:
        yield ""
        yield f"The rule stands at {path}:{advice.line}:{advice.column}, {advice.where}."
    yield ""
    yield from _change(advice)


def _change(advice: Advice) -> Iterator[str]:
    if advice.text is None:
        yield "No change can be suggested from this alone."
        yield "If values are missing: 'denials_show_arguments := true' or 'denials_show_environment := true' in the"
        yield "policy shows them in denials; 'parma record' of a permissive policy has whole requests."
        return
    known = "the request is then allowed" if advice.complete else "other rules may fail next"
    yield f"Suggested change ({known}; the policy's hash changes with it):"
    yield from advice.diff.splitlines()
    for finding in advice.findings:
        yield ""
        yield f"Mind: {finding.message} [{finding.rule}]"
