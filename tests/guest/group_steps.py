# SPDX-License-Identifier: Apache-2.0
"""A container of the enforcer's group over fakes, brought as far as a test wants it."""

from __future__ import annotations

from typing import Any

from parma_guest import requests
from parma_guest.requests import MountDevice, MountOverlay, MountScratch
from parma_guest.values import ExecId, LayerTarget, RootHash
from parma_wire import guest_pb2 as pb
from tests.guest.fakes import CONTAINER, HASH, Rig

INIT = ExecId("")
LAYER = LayerTarget("/run/mounts/scsi/m0")
TOP = LayerTarget("/run/mounts/scsi/m1")


def mount(rig: Rig, target: LayerTarget = LAYER, lun: int = 0, blocks: int = 10) -> None:
    rig.group.storage.mount_device(MountDevice(lun, target, RootHash(HASH), blocks))


def rootfs(rig: Rig) -> None:
    mount(rig)
    mount(rig, TOP, 1)
    rig.group.storage.mount_scratch(MountScratch(CONTAINER, 7, None))
    rig.group.storage.mount_overlay(MountOverlay(CONTAINER, (TOP, LAYER)))


def creation(**fields: Any) -> requests.CreateContainer:
    process = {"args": ["/bin/app"], "env": ["A=1", "B=2"], **fields.pop("process", {})}
    message = pb.CreateContainerRequest(container_id=CONTAINER, process=pb.Process(**process), **fields)
    return requests.create_container(message)


def execution(exec_id: str = "one", **process: Any) -> requests.ExecProcess:
    message = pb.ExecProcessRequest(
        container_id=CONTAINER, exec_id=exec_id, process=pb.Process(**{"args": ["/bin/ls"], **process})
    )
    return requests.exec_process(message)


def running(rig: Rig, **fields: Any) -> None:
    rootfs(rig)
    rig.group.create(creation(**fields))
    rig.group.start(CONTAINER)
