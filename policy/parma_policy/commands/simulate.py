# SPDX-License-Identifier: Apache-2.0
"""``parma policy simulate``: a conversation with a policy, decided as the guest would."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parma_policy.commands.files import read_file, read_policy
from parma_wire.errors import Malformed

if TYPE_CHECKING:
    from parma_policy.conversation import Conversation
    from parma_policy.rego import Engine
    from parma_policy.simulate import Outcome


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "simulate",
        help="decide a recorded or written conversation and print each answer with its reason",
        description="Decides each step of a conversation as the guest would, with the same code and the same text. "
        "Exit status: 0; 1 when an answer is not the one that the conversation expects.",
    )
    parser.add_argument(
        "policy", type=Path, nargs="?", help="the policy; may be left out where the conversation has it"
    )
    parser.add_argument("conversation", type=Path, help="JSON Lines (call, input, expect), or a recording with steps")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")
    parser.add_argument("--denied", action="store_true", help="print only what is not allowed or not as expected")
    parser.add_argument("--parity", action="store_true", help="decide exactly as the reference enforcer does")
    parser.add_argument(
        "--rego-engine", type=Path, metavar="PROGRAM", help="for a policy with rules of its own: the engine to run"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints an outcome a step; 1 when one is not as expected."""
    from parma_policy import conversation, simulate
    from parma_policy.loaded import load_policy

    talk = conversation.parse(read_file(arguments.conversation, conversation.MAX_BYTES))
    text = _policy_text(arguments.policy, talk)
    with _engine(arguments.rego_engine) as engine:
        policy = load_policy(text, engine, parity=arguments.parity, platform=talk.platform)
        outcomes = list(simulate.simulate(policy, talk))
    for outcome in outcomes:
        if arguments.denied and outcome.allowed and not outcome.differences and _message(outcome) == "":
            continue
        sys.stdout.write(json.dumps(outcome.as_json()) + "\n" if arguments.json else _line(outcome))
    wrong = sum(bool(outcome.differences) for outcome in outcomes)
    if not arguments.json:
        allowed = sum(outcome.allowed for outcome in outcomes)
        sys.stdout.write(f"{allowed} allowed, {len(outcomes) - allowed} not, {wrong} not as expected\n")
    return 1 if wrong else 0


def _engine(program: Path | None) -> AbstractContextManager[Engine | None]:
    if program is None:
        return nullcontext()
    from parma_policy.rego.link import ChildEngine
    from parma_policy.rego.process import program as child

    return closing(ChildEngine(child(program)))


def _policy_text(path: Path | None, talk: Conversation) -> bytes:
    if path is not None:
        return read_policy(path)
    if talk.policy is None:
        raise Malformed("the conversation has no policy of its own", expected="simulate POLICY CONVERSATION")
    return talk.policy


def _message(outcome: Outcome) -> str:
    return outcome.malformed or (outcome.decision.message() if outcome.decision else "")


def _line(outcome: Outcome) -> str:
    word = "malformed" if outcome.malformed else "allowed" if outcome.allowed else "denied"
    if outcome.decision is not None and outcome.decision.overridden:
        word = "permitted"
    lines = [f"{outcome.step.line:>4}  {word:<9}  {outcome.step.call}"]
    lines += [
        f"{'':17}{line}"
        for line in (_message(outcome), *map("NOT AS EXPECTED: {}".format, outcome.differences))
        if line
    ]
    return "".join(f"{line}\n" for line in lines)
