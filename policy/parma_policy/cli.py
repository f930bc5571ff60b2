# SPDX-License-Identifier: Apache-2.0
"""``parma policy ...``: the commands of the policy room.

``add_policy_commands`` plugs them into the ``parma`` command; each sets ``run``, a function from the parsed arguments
to an exit code. Errors are raised as ParmaError, for the command to print.
"""

from __future__ import annotations

from typing import Any

from parma_policy.commands import annotation, check, diff, digest, explain, generate, learn, lint, show, simulate

_COMMANDS = (generate, show, digest, check, lint, explain, simulate, diff, learn, annotation)
"""In the order in which ``--help`` lists them."""


def add_policy_commands(subparsers: Any) -> None:
    """Adds ``policy`` and what is below it to an ``argparse`` sub-parser collection."""
    policy = subparsers.add_parser("policy", help="make and inspect execution policies")
    commands = policy.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
