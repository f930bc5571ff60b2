# SPDX-License-Identifier: Apache-2.0
"""Policies and requests for tests: a good one of each, to change one thing in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parma_policy.framework import GUEST, Decision, Platform, State, decide
from parma_policy.framework.view import UNPRIVILEGED_CAPABILITIES
from parma_policy.model import Policy
from parma_policy.points import POINTS
from parma_policy.reader import load

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "policy"

ID = "a1" * 32
OTHER_ID = "b2" * 32
LAYERS = tuple(digit * 64 for digit in "123")
SANDBOX = f"/run/gcs/c/{ID}/sandboxMounts"
HUGE_PAGES = f"/run/gcs/c/{ID}/hugepages"
CAPS = list(UNPRIVILEGED_CAPABILITIES)

Json = dict[str, Any]


def disk(number: int) -> str:
    return f"/run/mounts/scsi/m{number}"


def rootfs(container: str = ID) -> str:
    return f"/run/gcs/c/{container}/rootfs"


def capabilities(names: Sequence[str] = CAPS) -> Json:
    return {
        "bounding": list(names),
        "effective": list(names),
        "inheritable": [],
        "permitted": list(names),
        "ambient": [],
    }


def container(**changes: Any) -> Json:
    """A policy's container."""
    good: Json = {
        "command": ["/bin/app", "--serve"],
        "env_rules": [
            {"pattern": "PATH=/usr/bin:/bin", "strategy": "string", "required": True},
            {"pattern": "HOSTNAME=.+", "strategy": "re2", "required": False},
        ],
        "layers": list(LAYERS),
        "mounts": [
            {
                "destination": "/data",
                "options": ["rbind", "rshared", "rw"],
                "source": "sandbox:///tmp/empty/.+",
                "type": "bind",
            },
            {"destination": "/exact", "options": ["ro"], "source": "/exact/source", "type": "bind"},
        ],
        "exec_processes": [{"command": ["/bin/sh"], "signals": [9, 15]}],
        "signals": [15],
        "user": {
            "user_idname": {"pattern": "1000", "strategy": "id"},
            "group_idnames": [{"pattern": "1000", "strategy": "id"}],
            "umask": "0022",
        },
        "capabilities": capabilities(),
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "working_dir": "/srv",
        "allow_stdio_access": True,
        "no_new_privileges": True,
    }
    return {**good, **changes}


def text(*containers: Json, without: Sequence[str] = (), **definitions: Any) -> str:
    """A policy text: these containers, all rules except ``without``, and further definitions (None: leave out)."""
    values: Json = {
        "api_version": "0.12.0",
        "framework_version": "0.5.0",
        "containers": list(containers) or [container()],
        **definitions,
    }
    lines = ["package policy", ""]
    lines += [f"{name} := {json.dumps(value)}" for name, value in values.items() if value is not None]
    lines += [f"{name} := data.framework.{name}" for name in POINTS if name not in without]
    return "\n".join([*lines, "reason := data.framework.reason", ""])


def policy(*containers: Json, without: Sequence[str] = (), parity: bool = False, **definitions: Any) -> Policy:
    return load(text(*containers, without=without, **definitions).encode(), parity=parity)


def short(*lines: str, parity: bool = False) -> Policy:
    """A policy of these definitions only."""
    return load("\n".join(["package policy", *lines, ""]).encode(), parity=parity)


def process(**changes: Any) -> Json:
    """The part of a request that create and exec share, as the good container allows it."""
    return {
        "containerID": ID,
        "argList": ["/bin/app", "--serve"],
        "envList": ["PATH=/usr/bin:/bin"],
        "workingDir": "/srv",
        "noNewPrivileges": True,
        "user": {"id": "1000", "name": "app"},
        "groups": [{"id": "1000", "name": "app"}],
        "umask": "0022",
        "capabilities": capabilities(),
        **changes,
    }


def creation(**changes: Any) -> Json:
    """A create_container request that the good container allows."""
    return {
        **process(),
        "sandboxDir": SANDBOX,
        "hugePagesDir": HUGE_PAGES,
        "mounts": [],
        "devices": [],
        "privileged": False,
        "seccompProfileSHA256": "",
        "isSandboxContainer": False,
        **changes,
    }


def execution(**changes: Any) -> Json:
    """An exec_in_container request that the good container allows."""
    return process(**{"argList": ["/bin/sh"], **changes})


@dataclass
class Talk:
    """A conversation with the framework; remembers the state."""

    policy: Policy
    state: State = field(default_factory=State.initial)
    platform: Platform = GUEST

    def ask(self, point: str, request: Mapping[str, object] | None = None, /, **members: object) -> Decision:
        decision, self.state = decide(
            self.policy, self.state, point, members if request is None else request, platform=self.platform
        )
        assert decision.point == point[:80]
        return decision

    def mount_layers(self, layers: Sequence[str] = LAYERS, first: int = 0) -> list[str]:
        """Mounts the layers (base first) and returns their targets, top first."""
        targets = [disk(first + number) for number in range(len(layers))]
        for target, layer in zip(targets, layers, strict=True):
            assert self.ask("mount_device", target=target, deviceHash=layer).allowed
        return targets[::-1]

    def mount_overlay(self, targets: Sequence[str], container_id: str = ID) -> Decision:
        return self.ask(
            "mount_overlay", containerID=container_id, layerPaths=list(targets), target=rootfs(container_id)
        )

    def prepared(self, layers: Sequence[str] = LAYERS) -> Talk:
        """With layers and overlay mounted."""
        assert self.mount_overlay(self.mount_layers(layers)).allowed
        return self

    def created(self, **changes: Any) -> Talk:
        """With the container created."""
        assert self.prepared().ask("create_container", creation(**changes)).allowed
        return self


def code(decision: Decision) -> str:
    """The first reason's code of a denial."""
    assert not decision.allowed
    return decision.reasons[0].code
