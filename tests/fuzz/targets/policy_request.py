# SPDX-License-Identifier: Apache-2.0
"""Requests to enforcement points: any document at any point is decided or `Malformed`, and a no changes nothing."""

from __future__ import annotations

import json

from parma_policy.framework import POINTS, State, decide
from parma_wire.errors import Malformed
from tests.policy.builders import LAYERS, Talk, creation, disk, execution, policy, rootfs

_POLICY = policy(
    fragments=[{"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}],
    allow_properties_access=True,
    allow_environment_variable_dropping=True,
    allow_capability_dropping=True,
)
_STATES = (State.initial(), Talk(_POLICY).prepared().state, Talk(_POLICY).created().state)

_REQUESTS: dict[str, object] = {
    "mount_device": {"target": disk(7), "deviceHash": LAYERS[0]},
    "unmount_device": {"unmountTarget": disk(0)},
    "rw_mount_device": {"target": "/run/gcs/c/" + "c3" * 32, "encrypted": True, "ensureFilesystem": True,
                        "filesystem": "ext4"},
    "mount_overlay": {"containerID": "b2" * 32, "layerPaths": [disk(2), disk(1), disk(0)], "target": rootfs("b2" * 32)},
    "unmount_overlay": {"unmountTarget": rootfs()},
    "create_container": creation(),
    "exec_in_container": execution(),
    "signal_container_process": {"containerID": "a1" * 32, "signal": 15, "isInitProcess": True, "argList": []},
    "shutdown_container": {"containerID": "a1" * 32},
    "plan9_mount": {"target": "/run/gcs/c/" + "a1" * 32 + "/mounts/m0"},
    "scratch_mount": {"target": "/run/gcs/c/x", "encrypted": True},
    "load_fragment": {"issuer": "i", "feed": "f", "header_svn": 1, "rego": "package v\nsvn := 1", "receipts": []},
    "load_transparency_trust_list": {"issuer": "i", "subject": "s", "svn": 1, "ledgers": ["l"]},
    "log_provider": {"providers": ["a"]},
    "get_properties": {},
}  # fmt: skip
SEEDS = [
    json.dumps({"state": number, "point": point, "input": request}).encode()
    for number, (point, request) in enumerate(_REQUESTS.items())
]


def target(data: bytes) -> None:
    """``{"state": number, "point": name, "input": document}``."""
    try:
        asked = json.loads(data)
        state, point, request = _STATES[asked["state"] % len(_STATES)], asked["point"], asked["input"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if not isinstance(point, str) or isinstance(asked["state"], float):
        return
    try:
        decision, after = decide(_POLICY, state, point, request)
    except Malformed:
        return
    assert decision.allowed or after is state
    assert decision.allowed or (decision.message() and (decision.reasons or point not in POINTS))
