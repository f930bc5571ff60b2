# SPDX-License-Identifier: Apache-2.0
"""``parma policy hash``: what HOST_DATA is for a policy."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.commands.files import add_own_rules, check_loads, read_file, read_policy
from parma_wire.errors import Malformed

_MAX_ANNOTATION = 4 << 20


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "hash",
        help="print the SHA-256 of a policy: what HOST_DATA of a report must be",
        description="Prints the SHA-256 of a policy's bytes, in hex and base64. Every byte counts: a line end more is "
        "another policy. A policy that the guest would refuse has no hash.",
    )
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("-"), help="the policy; - for standard input (default)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--annotation", action="store_true", help="the file has the text of the annotation io.parma.policy"
    )
    what.add_argument("--annotation-text", metavar="TEXT", help="the text of the annotation itself")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--hex", action="store_true", help="print the hex form only")
    form.add_argument("--base64", action="store_true", help="print the base64 form only")
    form.add_argument("--json", action="store_true", help="print an object")
    add_own_rules(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the digest."""
    data = _policy(arguments)
    check_loads(data, own_rules=arguments.own_rules)
    digest = hashlib.sha256(data).digest()
    forms = {"hex": digest.hex(), "base64": base64.b64encode(digest).decode()}
    if arguments.json:
        sys.stdout.write(json.dumps({"sha256": forms["hex"], **forms, "bytes": len(data)}) + "\n")
    else:
        wanted = [name for name in forms if getattr(arguments, name)] or list(forms)
        sys.stdout.write("".join(f"{forms[name]}\n" for name in wanted))
    return 0


def _policy(arguments: argparse.Namespace) -> bytes:
    from parma_policy.annotation import load_annotation

    if arguments.annotation_text is not None:
        return load_annotation(arguments.annotation_text)
    if not arguments.annotation:
        return read_policy(arguments.file)
    try:
        return load_annotation(read_file(arguments.file, _MAX_ANNOTATION).decode("ascii").strip())
    except UnicodeDecodeError:
        raise Malformed("the annotation is not base64", expected="ASCII text") from None
