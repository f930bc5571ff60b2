# SPDX-License-Identifier: Apache-2.0
"""Commands of manifests: the image's and the pod's together, references expanded, handlers as execs."""

from __future__ import annotations

from typing import Any

import pytest

from parma_policy.generate.assemble import Variable
from parma_policy.generate.kubernetes.expansion import expand_static
from parma_policy.generate.patterns import Text
from parma_policy.generate.source import ContainerOptions
from tests.policy.generate.kubernetes.manifests import pod
from tests.policy.generate.sources import accepts


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("x$(A)y$(B)", "x1y$(A)"),
        ("$()", "$()"),
        ("", ""),
    ],
)
def test_references_expand_as_in_kubelet(given: str, expected: str) -> None:
    assert expand_static(given, {"A": "1", "B": "$(A)"}) == expected


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (None, None, ("/entry", "serve")),
        (None, ["a"], ("/entry", "a")),
        (["/c"], None, ("/c",)),
        (["/c"], ["a"], ("/c", "a")),
        ([], [], ("/entry", "serve")),
    ],
)
def test_commands_and_images_merge_as_in_containerd(
    made: Any, command: list[str] | None, args: list[str] | None, expected: tuple[str, ...]
) -> None:
    (container,) = made(pod({"command": command, "args": args}))
    assert container.command == expected


def test_a_command_cannot_contain_what_is_not_known(refused: Any) -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    text = refused(pod({"env": env, "args": ["$(IP)", "$(KUBERNETES_SERVICE_HOST)", "$(DB_SERVICE_PORT)"]}))
    assert text.count("only known when the pod starts") == 2
    assert "$(DB_SERVICE_PORT) may be a variable of a service" in text


def test_variables_from_the_command_line_count_for_commands_too(made: Any) -> None:
    chosen = ContainerOptions(env=(Variable("IP", Text.of("10.0.0.1")),))
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    (found,) = made(pod({"env": env, "args": ["$(IP)"]}), options={"main": chosen})
    assert found.command == ("/entry", "10.0.0.1")
    assert not accepts(found, "IP=10.0.0.2")


def test_probes_and_hooks_that_run_commands_are_in_the_exec_list(made: Any) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container = {
        "env": env,
        "livenessProbe": {"exec": {"command": ["l", "$(A)", "$(B)", "$(C)"]}, "periodSeconds": 1},
        "readinessProbe": {"tcpSocket": {"port": 1}},
        "startupProbe": {"exec": {"command": ["s"]}},
        "lifecycle": {
            "postStart": {"exec": {"command": ["p", "$(A)"]}},
            "preStop": {"sleep": {"seconds": 1}},
            "stopSignal": "SIGWINCH",
        },
    }
    (found,) = made(pod(container))
    assert [process.command for process in found.exec_processes] == [
        ("s",),
        # Kubelet expands what is written in the manifest; what comes from elsewhere is empty to it.
        ("l", "1", "", "$(C)"),
        ("p", "$(A)"),
    ]
    assert 28 in found.signals
