# SPDX-License-Identifier: Apache-2.0
"""``parma policy learn``: from a recorded permissive run to a policy."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.commands.files import read_file, write_file
from parma_wire.errors import Malformed


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "learn",
        help="make the least policy that allows a recorded permissive run",
        description="Makes the least policy that allows what 'parma record' printed, and checks it: everything "
        "recorded is allowed, and denied with any one value changed. Run with the policy of --starting-policy first. "
        "Read the result before using it: it allows what happened, whether that was right or not.",
    )
    parser.add_argument("recording", type=Path, nargs="?", help="what 'parma record' printed; - for standard input")
    parser.add_argument("--starting-policy", action="store_true", help="print a permissive policy to record with")
    parser.add_argument("--runtime-logging", action="store_true", help="let the host see the enforcer's own log")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to put the policy; else standard output")
    parser.add_argument("--json", action="store_true", help="print an object with the policy and what was checked")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints or writes the policy."""
    from parma_policy import conversation, learn

    if arguments.starting_policy:
        _put(learn.starting_policy(), arguments.out)
        return 0
    if arguments.recording is None:
        raise Malformed("no recording is given", expected="a file, - for standard input, or --starting-policy")
    recording = conversation.parse(read_file(arguments.recording, conversation.MAX_BYTES))
    learned = learn.learn(recording, logging=arguments.runtime_logging)
    if arguments.json:
        document = {"policy": learned.text, "allowed": learned.allowed, "denied": learned.denied}
        sys.stdout.write(json.dumps(document) + "\n")
    if arguments.out is not None or not arguments.json:
        _put(learned.text, arguments.out)
    checked = f"checked: {learned.allowed} recorded requests are allowed, {learned.denied} changed ones denied"
    sys.stderr.write(checked + "\n")
    return 0


def _put(text: str, path: Path | None) -> None:
    if path is None:
        sys.stdout.write(text)
    else:
        write_file(path, text.encode())
