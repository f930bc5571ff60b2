# SPDX-License-Identifier: Apache-2.0
"""``parma policy show``: a policy as a person would describe it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.commands.files import read_policy


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser("show", help="say in words what may run, with what, and what nobody may do")
    parser.add_argument("file", type=Path, help="the policy; - for standard input")
    parser.add_argument("--json", action="store_true", help="print an object instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the description."""
    from parma_policy.describe import describe
    from parma_policy.reader import load
    from parma_policy.summary import as_json

    policy = load(read_policy(arguments.file))
    sys.stdout.write(json.dumps(as_json(policy), indent=2) + "\n" if arguments.json else describe(policy))
    return 0
