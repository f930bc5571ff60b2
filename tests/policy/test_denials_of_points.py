# SPDX-License-Identifier: Apache-2.0
"""What denials at other points than create_container tell, word by word; see ``test_denial_messages``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.policy.builders import ID, LAYERS, Json, Talk, container, disk, policy


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (None, "the container receive: expected one of [15], got 1; to allow it, containers[0].signals "),
        (
            ["/bin/sh"],
            (
                'command ["/bin/sh"] receive: expected one of [9, 15], got 1; to allow it, '
                "containers[0].exec_processes[0].signals "
            ),
        ),
        (["/x"], 'command ["/x"] receive: expected none, got 1; to allow it, containers[0].exec_processes '),
    ],
)
def test_a_signal_that_is_denied(command: Sequence[str] | None, expected: str) -> None:
    request = {"containerID": ID, "signal": 1, "isInitProcess": command is None, "argList": command}
    message = Talk(policy()).created().ask("signal_container_process", request).message()
    assert message.startswith(f"signal_container_process denied: signal is not one that the policy lets {expected}")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((0, 1), f'expected layer 2 "{LAYERS[2]}", got 2 layers'),
        ((0, 1, 2, 2), f'expected 3 layers, got "{LAYERS[2]}"'),
        ((0, 2, 1), f'expected layer 1 "{LAYERS[1]}", got "{LAYERS[2]}"'),
        ((), f'expected layer 0 "{LAYERS[0]}", got 0 layers'),
    ],
)
def test_layers_that_are_denied(order: Sequence[int], expected: str) -> None:
    talk = Talk(policy())
    talk.mount_layers()
    assert talk.mount_overlay([disk(number) for number in reversed(order)]).message() == (
        f"mount_overlay denied: no container of the policy has exactly these layers in this order: {expected}; to "
        "allow it, the policy would have to be generated again for this image [layers at containers[0].layers]"
    )


def test_layers_are_compared_with_those_of_the_container_that_has_the_most_of_them() -> None:
    none, most = container(layers=["9" * 64, "8" * 64]), container(layers=[LAYERS[0], LAYERS[1], "7" * 64])
    talk = Talk(policy(none, most, container()))
    talk.mount_layers()
    reason = talk.mount_overlay([disk(1), disk(0)]).reasons[0]
    assert (reason.where, reason.actual) == ("containers[1].layers", "2 layers")


def test_layers_where_the_policy_has_no_containers() -> None:
    decision = Talk(policy(containers=[])).mount_overlay([])
    assert decision.hint() == "the policy would have to be generated again for this image"
    assert decision.reasons[0].where == ""


def external(**changes: Any) -> Json:
    return {"command": ["tool"], "env_rules": [], "working_dir": "/", "allow_stdio_access": True, **changes}


FAR = external(command=["far"], working_dir="/far")


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (
            [],
            (
                "the policy lists no external processes; to allow it, external_processes would have to list it "
                "[command at external_processes]"
            ),
        ),
        *(
            (
                processes,
                (
                    f'working directory is not the one in the policy: expected "/", got "/x"; to allow it, {place} '
                    f'would have to be "/x" [working_dir at {place}]'
                ),
            )
            for processes, place in (
                ([FAR, external()], "external_processes[1].working_dir"),
                ([external(), FAR], "external_processes[0].working_dir"),
            )
        ),
    ],
)
def test_an_external_process_is_compared_with_the_closest(processes: list[Json], expected: str) -> None:
    request = {"argList": ["tool"], "envList": [], "workingDir": "/x"}
    decision = Talk(policy(external_processes=processes)).ask("exec_external", request)
    assert decision.message() == f"exec_external denied: {expected}"


@pytest.mark.parametrize(
    ("point", "request_", "expected"),
    [
        (
            "forward_port",
            {"port": 2},
            (
                "the host may not connect to this port of the containers' loopback: got 2; to allow it, forward_ports "
                "would have to list it [port at forward_ports]"
            ),
        ),
        (
            "log_provider",
            {"providers": ["a", "b", "c"]},
            (
                'log provider "b" is not in the policy; to allow it, allowed_log_providers would have to list it '
                "[provider at allowed_log_providers]"
            ),
        ),
        (
            "load_transparency_trust_list",
            {"issuer": "i", "subject": "s", "svn": 1, "ledgers": []},
            "no rule of the policy accepts this issuer, subject and version [trust_list at transparency_trust_lists]",
        ),
    ],
)
def test_what_a_short_list_decides(point: str, request_: Json, expected: str) -> None:
    decision = Talk(policy(allowed_log_providers=["a"])).ask(point, request_)
    assert decision.message() == f"{point} denied: {expected}"


def test_a_policy_older_than_a_point_is_told_which_version_it_would_need() -> None:
    older = Talk(policy(without=["host_network"], api_version="0.1.0"))
    assert older.ask("host_network").message() == (
        "host_network denied: the policy is older than this enforcement point; to allow it, api_version would have "
        "to be 0.12.0 or newer [old_policy at api_version]"
    )
