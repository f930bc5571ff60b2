# SPDX-License-Identifier: Apache-2.0
"""How long loading a policy and deciding takes, for ``./dev bench``.

Times are taken twice: on the clock on the wall, which on a shared machine measures the others as well, and of this
thread on the processor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from parma_policy.framework import Decision, State, decide
from parma_policy.framework.view import UNPRIVILEGED_CAPABILITIES
from parma_policy.generate import Image, Wish, container_for, generate
from parma_policy.model import Policy
from parma_policy.reader import load

_ID = "ab" * 32
_LAYERS = 5
RULES = 12
_SHELL = ("/bin/sh", "-c", "true")

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Times:
    """Of one action: medians and 99th percentiles in microseconds, on the wall and on the processor."""

    wall_median: float
    wall_p99: float
    cpu_median: float
    cpu_p99: float

    @classmethod
    def of(cls, action: Callable[[], object], rounds: int) -> Times:
        """Runs the action that often."""
        wall, cpu = [], []
        for _ in range(rounds):
            began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
            action()
            cpu.append((time.thread_time_ns() - began_cpu) / 1e3)
            wall.append((time.perf_counter_ns() - began) / 1e3)
        return cls(statistics.median(wall), _p99(wall), statistics.median(cpu), _p99(cpu))


def _p99(samples: list[float]) -> float:
    return sorted(samples)[int(len(samples) * 0.99)]


def policy_text(containers: int, rules: int = RULES, *, alike: bool = False) -> bytes:
    """A policy of ``containers`` containers on the same layers, each with ``rules`` environment rules, a third of them
    expressions. ``alike``: only the environment tells them apart, so that every rule of every container counts."""
    made = []
    for number in range(containers):
        image = Image({"Env": ["PATH=/bin"]}, tuple(f"{layer:064x}" for layer in range(_LAYERS)))
        container = container_for(image, Wish(command=_command(number, alike=alike)))
        container["env_rules"] = [_rule(number, rule) for rule in range(rules)]
        container["exec_processes"] = [{"command": list(_SHELL), "signals": [9]}]
        made.append(container)
    return generate(made).encode()


def _command(number: int, *, alike: bool) -> tuple[str, ...]:
    return ("/bin/app",) if alike else ("/bin/app", f"--number={number}")


def _rule(container: int, rule: int) -> Json:
    if rule % 3 == 0:
        return {"pattern": f"EXPRESSION_{rule}=[0-9]+", "strategy": "re2", "required": False}
    return {"pattern": f"LITERAL_{rule}={container}", "strategy": "string", "required": False}


def _variable(container: int, rule: int) -> str:
    return f"EXPRESSION_{rule}=12345" if rule % 3 == 0 else f"LITERAL_{rule}={container}"


def create_request(container: int, rules: int, *, alike: bool = False) -> Json:
    """The request that container ``container`` of ``policy_text`` allows."""
    return {
        **_process(container, rules, _command(container, alike=alike)),
        "sandboxDir": "/sandbox",
        "hugePagesDir": "/hugepages",
        "mounts": [],
        "devices": [],
        "privileged": False,
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
    }


def _process(container: int, rules: int, command: Sequence[str]) -> Json:
    capabilities: Sequence[str] = UNPRIVILEGED_CAPABILITIES
    return {
        "containerID": _ID,
        "argList": list(command),
        "envList": [_variable(container, rule) for rule in range(rules)],
        "workingDir": "/",
        "noNewPrivileges": True,
        "user": {"id": "0", "name": "root"},
        "groups": [{"id": "0", "name": "root"}],
        "umask": "0022",
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": [],
            "ambient": [],
        },
    }


@dataclass(slots=True)
class Conversation:
    """A container's life up to some request, under the policy of one shape."""

    policy: Policy
    state: State

    def allowed(self, point: str, request: Json) -> None:
        """Goes on with a request that must be allowed."""
        decision, self.state = decide(self.policy, self.state, point, request)
        if not decision.allowed:
            raise AssertionError(decision.message())

    def times(self, point: str, request: Json, rounds: int, *, allowed: bool = True) -> Times:
        """Of the same request, asked of the same state again and again."""
        answer = self._ask(point, request)
        if answer.allowed is not allowed:
            raise AssertionError(answer.message())
        return Times.of(lambda: self._ask(point, request), rounds)

    def _ask(self, point: str, request: Json) -> Decision:
        return decide(self.policy, self.state, point, request)[0]


def preparation() -> Iterator[tuple[str, Json]]:
    """The requests that come before a container is created: layers and overlay."""
    disks = [f"/run/mounts/scsi/m{layer}" for layer in range(_LAYERS)]
    for layer, target in enumerate(disks):
        yield "mount_device", {"target": target, "deviceHash": f"{layer:064x}"}
    yield (
        "mount_overlay",
        {"containerID": _ID, "layerPaths": disks[::-1], "target": f"/run/gcs/c/{_ID}/rootfs"},
    )


def decision_times(
    containers: int, rules: int = RULES, rounds: int = 1000, *, alike: bool = False
) -> Mapping[str, Times]:
    """Of one decision at each point of a container's life; it is the policy's last container. By point."""
    talk = Conversation(load(policy_text(containers, rules, alike=alike)), State.initial())
    last = containers - 1
    create = create_request(last, rules, alike=alike)
    found: dict[str, Times] = {}
    for point, request in preparation():
        if point not in found:
            found[point] = talk.times(point, request, rounds)
        talk.allowed(point, request)
    wrong = {**create, "workingDir": "/elsewhere"}
    found["create_container, denied"] = talk.times("create_container", wrong, rounds // 5, allowed=False)
    found["create_container"] = talk.times("create_container", create, rounds)
    talk.allowed("create_container", create)
    execute = _process(last, rules, _SHELL)
    found["exec_in_container"] = talk.times("exec_in_container", execute, rounds)
    signal: Json = {"containerID": _ID, "signal": 15, "isInitProcess": True, "argList": []}
    found["signal_container_process"] = talk.times("signal_container_process", signal, rounds)
    return found


def load_times(counts: Iterable[int], rounds: int = 5) -> dict[int, Times]:
    """Of loading, by the number of containers in the policy."""
    times = {}
    for count in counts:
        data = policy_text(count)
        times[count] = Times.of(lambda data=data: load(data), rounds)  # type: ignore[misc]
    return times
