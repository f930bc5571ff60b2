# SPDX-License-Identifier: Apache-2.0
"""Requests of every kind to the real enforcer under a policy: refused ones change nothing, and none is a bug.

The bytes say which requests, and what is changed in each; every RPC of the service has one here that is right. The
kernel and crun are fakes that never fail, so nothing but a bug could poison the group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parma_guest.decisions import FrameworkEngine
from parma_guest.service import GuestService
from parma_guest.values import ContainerId
from parma_wire import guest_pb2 as pb
from parma_wire.errors import ParmaError
from tests.fuzz.edits import Choices, edit_message
from tests.guest.fakes import Rig
from tests.guest.rpcs import COMMAND, EXEC, HONEST, METHODS
from tests.policy.builders import LAYERS, container, text

_IDS = tuple(digit * 64 for digit in "ab")
_POLICY = text(
    container(layers=[LAYERS[0]]),
    allow_properties_access=True,
    allow_runtime_logging=True,
    allow_environment_variable_dropping=True,
    allow_capability_dropping=True,
).encode()
_ENGINE = FrameworkEngine(_POLICY)
_MOST_REQUESTS = 12
_NOWHERE = Path("/nonexistent/parma-fuzz")
"""Where containers have their cgroups: no kernel makes any here."""

_TEXTS = (
    *("", "/", "..", "a", "/data", "/etc/hosts", "bind", "tmpfs", "rbind", "rw", "A=1", "PATH=/usr/bin:/bin", "e0"),
    *(*_IDS, *LAYERS, *COMMAND, *EXEC, *(f"/run/mounts/scsi/m{number}" for number in range(3)), "0", "0-1"),
    *("net.ipv4.ip_unprivileged_port_start", "CAP_KILL", "RLIMIT_NOFILE", "host.example", "eth0", "é\0\n"),
    *("/volumes/secret/s", "/tmp/atlas/emptydir/x", f"/run/gcs/c/{_IDS[0]}/sandboxMounts/tmp/empty/x"),
    *('{"defaultAction":"SCMP_ACT_ALLOW"}', "127.0.0.1 localhost\n", "\x02\0\0\0\0\1", "\n\0\0\1", "x" * 20_000),
)


def _seed(*methods: str, tail: bytes = b"") -> bytes:
    """Honest requests about the first container; ``tail`` has those that are not."""
    return b"".join(bytes([METHODS.index(method), 0, 0]) for method in methods) + tail


_LIFE = ("MountDevice", "MountScratch", "MountOverlay", "CreateContainer", "StartContainer", "ExecProcess")
SEEDS = [
    *(_seed(method) for method in METHODS),
    _seed(*_LIFE, "SignalProcess", "WaitProcess", "DeleteProcess", "DeleteContainer", "Stats", "ListProcesses"),
    _seed("MountDevice", "MountScratch", "MountOverlay", "CreateContainer", "DeleteContainer", "UnmountOverlay"),
    _seed("CreateSandbox", "MountVolume", "MountDevice", "MountScratch", "MountOverlay", "CreateContainer"),
    _seed("PutFile", "ProvideFiles", "ConfigureNetwork", "PutDocument", "LoadFragment", "PutEndorsements"),
    *(_seed(*_LIFE[:number], tail=bytes([METHODS.index(_LIFE[number]), 0, 2, *range(24)])) for number in range(6)),
]


class _Gone:
    """The context of a caller who does not wait."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        callback()

    def after_reply(self, callback: Callable[[], None]) -> None:
        """Nothing is to be done then."""

    def remaining(self) -> float | None:
        return None


class _World:
    """An enforcer with a policy, and all that its requests could change."""

    def __init__(self) -> None:
        self.rig = Rig(_NOWHERE, lambda _policy: _ENGINE)
        self.service = GuestService(self.rig.enforcer, self.rig.group, [], lambda: None)
        self.rig.enforcer.put_policy(0, _POLICY)
        self.rig.enforcer.set_policy(len(_POLICY))

    def snapshot(self) -> tuple[object, ...]:
        """Everything but documents and files that are on their way, and what no request can take back."""
        rig = self.rig
        return (
            self.rig.enforcer._state,
            [*rig.kernel.mounts],
            {**rig.mapper.devices},
            {**rig.runtime.containers},
            {name: (found.started, {**found.execs}) for name, found in rig.group._members.containers.items()},
            frozenset(rig.group._members.used_ids),
            rig.pod.sandbox,
            frozenset(rig.pod._volumes),
            rig.network.interfaces,
            len(rig.attestation.endorsements),
            {*rig.host.pinned_now},
        )


def target(data: bytes) -> None:
    """A few requests, one after the other."""
    world, choices = _World(), Choices(data)
    try:
        for _ in range(_MOST_REQUESTS):
            if not choices.left:
                break
            method = choices.pick(METHODS)
            message = HONEST[method](choices.pick(_IDS))
            for _ in range(choices.below(4)):
                edit_message(message, choices, _TEXTS)
            _ask(world, method, message)
    finally:
        for found in world.rig.group._members.containers.values():
            for process in (found.init, *found.execs.values()):
                process.close()


def _ask(world: _World, method: str, message: Any) -> None:
    before = world.snapshot()
    try:
        answer = getattr(world.service, method)(message, _Gone())
    except ParmaError:
        answer = None
    if answer is None:
        assert world.snapshot() == before, f"{method} was refused and changed something"
    else:
        assert type(answer) is getattr(pb, f"{method}Response")
    assert not world.rig.enforcer.poisoned
    assert not world.rig.host.pinned_now
    for name, spec in world.rig.runtime.containers.items():
        if name != world.rig.pod.sandbox:
            _check_spec(spec)


def _check_spec(spec: Mapping[str, Any]) -> None:
    """Nothing runs but what the policy has."""
    process = spec["process"]
    assert process["args"] == list(COMMAND)
    assert process["cwd"] == "/srv"
    assert process["noNewPrivileges"]
    assert process["user"]["uid"] == process["user"]["gid"] == 1000
    assert {variable.partition("=")[0] for variable in process["env"]} <= {"PATH", "HOSTNAME", "HOME"}
    assert set(spec) <= {"ociVersion", "root", "process", "mounts", "linux", "hostname"}
    assert "devices" not in spec["linux"]
    assert spec["linux"]["maskedPaths"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    ContainerId(Path(spec["root"]["path"]).parent.name)
