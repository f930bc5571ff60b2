# SPDX-License-Identifier: Apache-2.0
"""How long loading a policy and deciding takes, for ``./dev bench``."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Sequence

from parma_policy.framework import State, decide
from parma_policy.framework.view import UNPRIVILEGED_CAPABILITIES
from parma_policy.generate import Image, Wish, container_for, generate
from parma_policy.reader import load

_ID = "ab" * 32
_RULES = 12


def policy_text(containers: int, rules: int = _RULES) -> bytes:
    """A policy of ``containers`` containers on the same layers, each with ``rules`` environment rules, a third of them
    expressions."""
    made = []
    for number in range(containers):
        image = Image({"Env": ["PATH=/bin"]}, tuple(f"{layer:064x}" for layer in range(5)))
        container = container_for(image, Wish(command=("/bin/app", f"--number={number}")))
        container["env_rules"] = [_rule(number, rule) for rule in range(rules)]
        made.append(container)
    return generate(made).encode()


def _rule(container: int, rule: int) -> dict[str, object]:
    if rule % 3 == 0:
        return {"pattern": f"EXPRESSION_{rule}=[0-9]+", "strategy": "re2", "required": False}
    return {"pattern": f"LITERAL_{rule}={container}", "strategy": "string", "required": False}


def _variable(container: int, rule: int) -> str:
    return f"EXPRESSION_{rule}=12345" if rule % 3 == 0 else f"LITERAL_{rule}={container}"


def decision_samples(containers: int, rules: int = _RULES, rounds: int = 300) -> list[float]:
    """Times of one allowed ``create_container`` each, in microseconds. The container is the policy's last."""
    policy, state = load(policy_text(containers, rules)), State.initial()
    for layer in range(5):
        request: dict[str, object] = {"target": f"/run/mounts/scsi/m{layer}", "deviceHash": f"{layer:064x}"}
        _, state = decide(policy, state, "mount_device", request)
    paths = [f"/run/mounts/scsi/m{layer}" for layer in reversed(range(5))]
    overlay = {"containerID": _ID, "layerPaths": paths, "target": f"/run/gcs/c/{_ID}/rootfs"}
    _, state = decide(policy, state, "mount_overlay", overlay)
    request = create_request(containers - 1, rules)
    samples = []
    for _ in range(rounds):
        before = time.perf_counter()
        decision, _ = decide(policy, state, "create_container", request)
        samples.append((time.perf_counter() - before) * 1e6)
        if not decision.allowed:
            raise AssertionError(decision.message())
    return samples


def create_request(container: int, rules: int) -> dict[str, object]:
    """The request that container ``container`` of ``policy_text`` allows."""
    capabilities: Sequence[str] = UNPRIVILEGED_CAPABILITIES
    return {
        "containerID": _ID,
        "argList": ["/bin/app", f"--number={container}"],
        "envList": [_variable(container, rule) for rule in range(rules)],
        "workingDir": "/",
        "sandboxDir": "/sandbox",
        "hugePagesDir": "/hugepages",
        "mounts": [],
        "devices": [],
        "privileged": False,
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
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
    }


def decision_times(counts: Iterable[int], rules: int = _RULES) -> dict[int, float]:
    """Median microseconds of one ``create_container``, by the number of containers in the policy."""
    return {count: statistics.median(decision_samples(count, rules)) for count in counts}


def load_times(counts: Iterable[int], rounds: int = 5) -> dict[int, float]:
    """Median milliseconds of loading, by the number of containers in the policy."""
    times = {}
    for count in counts:
        data = policy_text(count)
        samples = []
        for _ in range(rounds):
            before = time.perf_counter()
            load(data)
            samples.append((time.perf_counter() - before) * 1e3)
        times[count] = statistics.median(samples)
    return times


def main() -> None:
    """Prints the table as JSON."""
    counts = (1, 10, 100)
    large = sorted(decision_samples(40, 40, 1000))
    print(
        json.dumps(
            {
                "load_ms": load_times(counts),
                "create_container_us": decision_times(counts),
                "create_container_40x40_p99_us": large[int(len(large) * 0.99)],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
