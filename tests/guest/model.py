# SPDX-License-Identifier: Apache-2.0
"""The enforcer as it should be: the framework's decisions and a handful of rules about order. Pure, with no I/O.

What the enforcer does for any host must look as if its requests had been given to :func:`step` one after the other.
Whether a request is refused by the policy or because it makes no sense now is not told apart: refused is refused, and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from parma_policy.framework import State, decide
from parma_policy.model import Policy
from parma_wire import guest_pb2 as pb
from tests.policy.builders import creation, disk, execution, rootfs

DATA_BLOCKS = 5
HIGHEST_LUN = 50
"""Where the fake devices end."""


class Request(NamedTuple):
    """One request of the host; ``arguments`` are those of the message that ``method`` takes."""

    method: str
    container: str = ""
    target: int = 0
    lun: int = 0
    root_hash: str = ""
    layers: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    exec_id: str = ""

    def message(self) -> Any:
        """As it goes over the wire."""
        return _MESSAGES[self.method](self)


class Faults(NamedTuple):
    """What does not work at the moment, as the fakes call it."""

    unmountable: frozenset[int] = frozenset()
    """Layer targets that cannot be mounted."""

    stuck: frozenset[int] = frozenset()
    """Layer targets that cannot be unmounted."""

    runtime: frozenset[str] = frozenset()
    """Operations that crun refuses."""


NO_FAULTS = Faults()


@dataclass(frozen=True)
class Running:
    """A container that has not been deleted."""

    command: tuple[str, ...]
    started: bool = False
    exec_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Model:
    """Everything that decides what comes next."""

    policy: Policy
    state: State = field(default_factory=State.initial)
    disks: Mapping[int, int] = field(default_factory=dict)
    """Layer target -> LUN."""
    scratch: Mapping[str, int] = field(default_factory=dict)
    """Container -> LUN."""
    overlays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    containers: Mapping[str, Running] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    poisoned: bool = False

    def key(self) -> str:
        """Equal for models that will answer alike: the framework's state follows from the rest and what is below."""
        matches = {identity: len(found) for identity, found in self.state.matches.items()}
        parts = (self.disks, self.scratch, self.overlays, self.containers, matches)
        return repr([*(sorted(part.items()) for part in parts), sorted(self.used), self.poisoned])

    def luns(self) -> set[int]:
        """Disks in use."""
        return {*self.disks.values(), *self.scratch.values()}


class Outcome(NamedTuple):
    """Whether the request was carried out, and what holds afterwards."""

    done: bool
    model: Model


def step(model: Model, request: Request, faults: Faults = NO_FAULTS) -> Outcome:
    """One request. What is refused leaves the model as it was, unless something could not be taken back."""
    refused = Outcome(False, model)
    if model.poisoned:
        return refused
    state = model.state
    for point, document in _questions(request):
        decision, state = decide(model.policy, state, point, document)
        if not decision.allowed:
            return refused
    after = _STEPS[request.method](model, request, faults)
    if after is None:
        return refused
    if after.poisoned:
        return Outcome(False, after)
    return Outcome(True, replace(after, state=state))


def _questions(request: Request) -> Sequence[tuple[str, Mapping[str, object]]]:
    identity = request.container
    place = f"/run/gcs/c/{identity}"
    match request.method:
        case "MountDevice":
            return [("mount_device", {"target": disk(request.target), "deviceHash": request.root_hash})]
        case "UnmountDevice":
            return [("unmount_device", {"unmountTarget": disk(request.target)})]
        case "MountScratch":
            encrypted = {"target": place, "encrypted": True, "ensureFilesystem": True, "filesystem": "ext4"}
            return [
                ("rw_mount_device", encrypted),
                ("scratch_mount", {"target": f"{place}/scratch/{identity}", "encrypted": True}),
            ]
        case "UnmountScratch":
            return [
                ("scratch_unmount", {"unmountTarget": f"{place}/scratch/{identity}"}),
                ("rw_unmount_device", {"unmountTarget": place}),
            ]
        case "MountOverlay":
            layers = [disk(number) for number in request.layers]
            return [("mount_overlay", {"containerID": identity, "layerPaths": layers, "target": rootfs(identity)})]
        case "UnmountOverlay":
            return [("unmount_overlay", {"unmountTarget": rootfs(identity)})]
        case "CreateContainer":
            return [("create_container", creation(containerID=identity, argList=list(request.command), **_PLACES))]
        case "ExecProcess":
            return [("exec_in_container", execution(containerID=identity, argList=list(request.command)))]
        case "DeleteContainer":
            return [("shutdown_container", {"containerID": identity})]
    return []


_PLACES = {"sandboxDir": "/run/gcs/c/sandboxMounts", "hugePagesDir": "/run/gcs/c/hugepages"}


def _mount_device(model: Model, request: Request, faults: Faults) -> Model | None:
    in_the_way = request.target in model.disks or request.lun in model.luns() or request.lun > HIGHEST_LUN
    if in_the_way or request.target in faults.unmountable:
        return None
    return replace(model, disks={**model.disks, request.target: request.lun})


def _unmount_device(model: Model, request: Request, faults: Faults) -> Model | None:
    if request.target not in model.disks or any(request.target in layers for layers in model.overlays.values()):
        return None
    if request.target in faults.stuck:
        return replace(model, poisoned=True)
    return replace(model, disks=_without(model.disks, request.target))


def _mount_scratch(model: Model, request: Request, _faults: Faults) -> Model | None:
    if request.container in model.scratch or request.lun in model.luns() or request.lun > HIGHEST_LUN:
        return None
    return replace(model, scratch={**model.scratch, request.container: request.lun})


def _unmount_scratch(model: Model, request: Request, _faults: Faults) -> Model | None:
    if request.container not in model.scratch or request.container in model.overlays:
        return None
    return replace(model, scratch=_without(model.scratch, request.container))


def _mount_overlay(model: Model, request: Request, _faults: Faults) -> Model | None:
    if request.container not in model.scratch or request.container in model.overlays:
        return None
    return replace(model, overlays={**model.overlays, request.container: request.layers})


def _unmount_overlay(model: Model, request: Request, _faults: Faults) -> Model | None:
    if request.container not in model.overlays or request.container in model.containers:
        return None
    return replace(model, overlays=_without(model.overlays, request.container))


def _create(model: Model, request: Request, faults: Faults) -> Model | None:
    identity = request.container
    if identity in model.used or identity not in model.overlays or "create" in faults.runtime:
        return None
    containers = {**model.containers, identity: Running(request.command)}
    return replace(model, containers=containers, used=model.used | {identity})


def _start(model: Model, request: Request, faults: Faults) -> Model | None:
    found = model.containers.get(request.container)
    if found is None or found.started or "start" in faults.runtime:
        return None
    return replace(model, containers={**model.containers, request.container: replace(found, started=True)})


def _execute(model: Model, request: Request, faults: Faults) -> Model | None:
    found = model.containers.get(request.container)
    if found is None or not found.started or request.exec_id in found.exec_ids or "exec" in faults.runtime:
        return None
    after = replace(found, exec_ids=found.exec_ids | {request.exec_id})
    return replace(model, containers={**model.containers, request.container: after})


def _delete(model: Model, request: Request, faults: Faults) -> Model | None:
    found = model.containers.get(request.container)
    if found is None or found.started:  # in these histories no process ends by itself
        return None
    if "delete" in faults.runtime:
        return replace(model, poisoned=True)
    return replace(model, containers=_without(model.containers, request.container))


_STEPS = {
    "MountDevice": _mount_device,
    "UnmountDevice": _unmount_device,
    "MountScratch": _mount_scratch,
    "UnmountScratch": _unmount_scratch,
    "MountOverlay": _mount_overlay,
    "UnmountOverlay": _unmount_overlay,
    "CreateContainer": _create,
    "StartContainer": _start,
    "ExecProcess": _execute,
    "DeleteContainer": _delete,
}
METHODS = tuple(_STEPS)


def _without(mapping: Mapping[Any, Any], key: object) -> dict[Any, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def _process(command: Sequence[str]) -> pb.Process:
    allowed = execution()
    names = {name: allowed["capabilities"][name] for name in ("bounding", "effective", "permitted")}
    return pb.Process(
        args=command,
        env=allowed["envList"],
        cwd=allowed["workingDir"],
        user=pb.User(uid=1000, gid=1000, umask=0o022),
        capabilities=pb.Capabilities(**names),
        no_new_privileges=True,
    )


_MESSAGES: Mapping[str, Callable[[Request], Any]] = {
    "MountDevice": lambda one: pb.MountDeviceRequest(
        lun=one.lun, target=disk(one.target), device_hash=one.root_hash, data_blocks=DATA_BLOCKS
    ),
    "UnmountDevice": lambda one: pb.UnmountDeviceRequest(target=disk(one.target)),
    "MountScratch": lambda one: pb.MountScratchRequest(container_id=one.container, lun=one.lun),
    "UnmountScratch": lambda one: pb.UnmountScratchRequest(container_id=one.container),
    "MountOverlay": lambda one: pb.MountOverlayRequest(
        container_id=one.container, layer_targets=[disk(number) for number in one.layers]
    ),
    "UnmountOverlay": lambda one: pb.UnmountOverlayRequest(container_id=one.container),
    "CreateContainer": lambda one: pb.CreateContainerRequest(container_id=one.container, process=_process(one.command)),
    "StartContainer": lambda one: pb.StartContainerRequest(container_id=one.container),
    "ExecProcess": lambda one: pb.ExecProcessRequest(
        container_id=one.container, exec_id=one.exec_id, process=_process(one.command)
    ),
    "DeleteContainer": lambda one: pb.DeleteContainerRequest(container_id=one.container),
}
