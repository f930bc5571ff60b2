# SPDX-License-Identifier: Apache-2.0
"""Reasons: their codes are the documented ones, what they show of secrets is what the policy says, nothing is cut."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import parma_policy.framework
from parma_policy.framework.codes import CODES
from parma_policy.framework.decision import MAX_MESSAGE
from parma_policy.points import OWN_POINTS, POINTS
from tests.policy.builders import ID, Talk, container, creation, execution, policy


def codes_in_use() -> set[str]:
    """First arguments of ``Reason(...)``, second ones of ``policy_error(...)``, in the framework's source."""
    found = set()
    for path in Path(parma_policy.framework.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                position = {"Reason": 0, "policy_error": 1}.get(node.func.id, 9)
                if position < len(node.args) and isinstance(node.args[position], ast.Constant):
                    found.add(node.args[position].value)  # type: ignore[attr-defined]
    return found


def test_every_code_is_documented_and_every_documented_code_is_used() -> None:
    assert codes_in_use() == set(CODES)


def test_codes_name_points_that_exist() -> None:
    assert {point for code in CODES.values() for point in code.points} - {"any point"} <= {*POINTS, *OWN_POINTS}


def denials(**definitions: Any) -> str:
    """What a user may see of requests with secrets in them, and of a policy with secrets in it."""
    secret = container(
        command=["/bin/app", "--password", "policy-arg"],
        env_rules=[{"pattern": "TOKEN=policy-env", "strategy": "string", "required": True}],
        exec_processes=[{"command": ["/bin/tool", "policy-exec"], "signals": [9]}],
    )
    good = {"argList": ["/bin/app", "--password", "policy-arg"], "envList": ["TOKEN=policy-env"]}
    talk = Talk(policy(secret, **definitions)).prepared()
    seen = [
        talk.ask("create_container", creation(**{**good, "argList": ["/bin/app", "--password", "host-arg"]})),
        talk.ask("create_container", creation(**{**good, "envList": ["TOKEN=host-env"]})),
        talk.ask("create_container", creation(**{**good, "envList": []})),
    ]
    assert talk.ask("create_container", creation(**good)).allowed
    seen += [
        talk.ask("exec_in_container", execution(**{**good, "argList": ["/bin/tool", "host-exec"]})),
        talk.ask(
            "signal_container_process",
            {"containerID": ID, "signal": 15, "isInitProcess": False, "argList": ["/bin/tool", "policy-exec"]},
        ),
        talk.ask("exec_external", {"argList": ["/x", "host-ext"], "envList": ["A=host-env"], "workingDir": "/"}),
    ]
    assert not any(decision.allowed for decision in seen)
    return "\n".join(decision.message() + repr(decision.reasons) for decision in seen)


def test_arguments_and_values_are_not_shown_unless_the_policy_says_so() -> None:
    shown = denials()
    assert "policy-" not in shown
    assert "host-" not in shown
    assert '"/bin/app" with 2 arguments' in shown
    assert "TOKEN" in shown


def test_a_policy_may_have_arguments_shown() -> None:
    shown = denials(denials_show_arguments=True)
    for word in ("policy-arg", "host-arg", "policy-exec", "host-exec"):
        assert word in shown
    assert "-env" not in shown


def test_a_policy_may_have_values_of_variables_shown() -> None:
    shown = denials(denials_show_environment=True)
    assert "TOKEN=host-env" in shown
    assert "TOKEN=policy-env" in shown
    assert "-arg" not in shown
    assert "-exec" not in shown


def test_a_reason_names_the_place_in_the_policy() -> None:
    other = container(command=["/bin/other"], working_dir="/elsewhere")
    talk = Talk(policy(other, container())).prepared()
    decision = talk.ask("create_container", creation(argList=["/bin/app", "--debug"]))
    assert decision.reasons[0].where == "containers[1].command[1]"
    assert decision.message().endswith("[command at containers[1].command[1]]")


def test_however_much_is_asked_for_the_message_stays_short_and_keeps_its_code() -> None:
    talk = Talk(policy(denials_show_arguments=True, denials_show_environment=True)).prepared()
    flood = [f"V{number}=" + "x" * 5000 for number in range(500)]
    for change in ({"argList": flood}, {"envList": flood}, {"workingDir": "/" + "x" * 100_000}):
        message = talk.ask("create_container", creation(**change)).message()
        assert len(message) <= MAX_MESSAGE
        assert message.endswith("]")
        assert message.isascii()


def test_an_overlay_denial_names_the_layer_that_differs() -> None:
    talk = Talk(policy())
    targets = talk.mount_layers()
    swapped = [targets[1], targets[0], targets[2]]
    reason = talk.mount_overlay(swapped).reasons[0]
    assert reason.where == "containers[0].layers"
    assert reason.expected.startswith("layer 1 ")
