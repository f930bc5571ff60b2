# SPDX-License-Identifier: Apache-2.0
"""``parma policy diff``: what one policy allows that another does not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_policy.commands.files import read_policy

_SHOWN = 200
"""Characters of a command line."""

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parma_policy.diff import Comparison, Difference


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "diff",
        help="say what a policy allows that another does not, in requests",
        description="Makes requests from the data of both policies and asks both. A difference that is shown is "
        "certain; where expressions differ and no request was found that shows it, that is said. Exit status: 0 when "
        "they are the same, 1 when they are not or that is undecided.",
    )
    parser.add_argument("a", type=Path, help="a policy; - for standard input")
    parser.add_argument("b", type=Path, help="another policy")
    parser.add_argument("--json", action="store_true", help="print an object, whole requests included")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the differences."""
    from parma_policy.diff import compare
    from parma_policy.reader import load

    comparison = compare(load(read_policy(arguments.a)), load(read_policy(arguments.b)))
    if arguments.json:
        sys.stdout.write(json.dumps(_json(comparison), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(comparison)))
    return int(bool(comparison.differences) or not comparison.same)


def _json(comparison: Comparison) -> dict[str, object]:
    return {
        "same": comparison.same,
        "requests": comparison.requests,
        "differences": [
            {
                "allowed_by": {"a": ["a"], "b": ["b"]}.get(difference.only, ["a", "b"]),
                "about": difference.about,
                "call": difference.question.call,
                "input": difference.question.input,
                "why": difference.why,
            }
            for difference in comparison.differences
        ],
        "undecided": list(comparison.undecided),
    }


def _lines(comparison: Comparison) -> Iterator[str]:
    titles = (
        ("a", "Only A allows:"),
        ("b", "Only B allows:"),
        ("", "Both allow, with other results:"),
    )
    for only, title in titles:
        found = [difference for difference in comparison.differences if difference.only == only]
        if found:
            yield title
            for difference in found:
                yield from _difference(difference)
            yield ""
    if comparison.undecided:
        yield "Undecided:"
        yield from (f"  {text}" for text in comparison.undecided)
        yield ""
    yield _verdict(comparison)


def _difference(difference: Difference) -> Iterator[str]:
    other = {"a": "B", "b": "A"}.get(difference.only, "")
    whose = f"{difference.only.upper()}'s " if other else ""
    yield f"  {difference.question.call}, as {whose}{difference.about} says{_command(difference)}"
    yield f"    {other + ': ' if other else ''}{difference.why}"


def _command(difference: Difference) -> str:
    """The command line that is asked for: both policies have it, and the reason may leave its arguments out."""
    command = difference.question.input.get("argList")
    if not isinstance(command, list | tuple):
        return ""
    text = " ".join(json.dumps(word, ensure_ascii=True) for word in command)
    return f": {text[:_SHOWN]}..." if len(text) > _SHOWN else f": {text}"


def _verdict(comparison: Comparison) -> str:
    asked = f"{comparison.requests} requests were decided by both"
    if comparison.same:
        return f"The policies mean the same ({asked})."
    if comparison.differences:
        return f"{len(comparison.differences)} differences ({asked})."
    return f"No difference was found ({asked}), but the policies are not written the same: that proves nothing."
