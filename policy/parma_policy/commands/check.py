# SPDX-License-Identifier: Apache-2.0
"""``parma policy check``: loads a policy as the guest does."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.commands.files import read_policy


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    check = commands.add_parser("check", help="load a policy as the guest does and say what it allows")
    check.add_argument("file", type=Path, help="the policy; - for standard input")
    check.add_argument("--json", action="store_true", help="print an object instead")
    check.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Loads a policy and prints its hash and what it allows. Exit code 1 for one that allows no container."""
    from parma_policy.reader import load
    from parma_policy.summary import as_json, as_text

    policy = load(read_policy(arguments.file))
    sys.stdout.write(json.dumps(as_json(policy), indent=2) + "\n" if arguments.json else as_text(policy))
    return 1 if policy.api_problem or policy.framework_problem else 0
