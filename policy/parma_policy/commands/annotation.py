# SPDX-License-Identifier: Apache-2.0
"""``parma policy annotation``: a policy as containerd's annotation wants it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from parma_policy.annotation import to_annotation
from parma_policy.commands.files import add_own_rules, check_loads, read_policy


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    annotation = commands.add_parser("annotation", help="print a policy as the annotation io.parma.policy wants it")
    annotation.add_argument("file", type=Path, help="the policy; - for standard input")
    annotation.add_argument("--no-gzip", action="store_true", help="plain base64, also of a large policy")
    add_own_rules(annotation)
    annotation.set_defaults(run=run_annotation)


def run_annotation(arguments: argparse.Namespace) -> int:
    """Prints the annotation's text, after loading the policy as the guest will."""
    data = read_policy(arguments.file)
    check_loads(data, own_rules=arguments.own_rules)
    sys.stdout.write(to_annotation(data, compress=not arguments.no_gzip) + "\n")
    return 0
