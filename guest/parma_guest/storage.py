# SPDX-License-Identifier: Apache-2.0
"""What containers stand on: verified layers, scratch spaces, overlays; and that none goes while another needs it."""

from __future__ import annotations

from collections.abc import Container

from parma_guest import decisions
from parma_guest.enforcer import Enforcer
from parma_guest.overlay import Overlays
from parma_guest.owners import UserNamespace
from parma_guest.requests import MountDevice, MountOverlay, MountScratch
from parma_guest.scratch import Scratches
from parma_guest.undo import must
from parma_guest.values import ContainerId, LayerTarget
from parma_guest.verity import Layers
from parma_wire.errors import FailedPrecondition


class Storage:
    """The policy decides what may be done; this class knows what makes sense. Both must agree."""

    def __init__(
        self,
        enforcer: Enforcer,
        layers: Layers,
        scratches: Scratches,
        overlays: Overlays,
        in_use: Container[ContainerId],
    ) -> None:
        """``in_use``: the containers that exist, at any time."""
        self._enforcer = enforcer
        self._layers = layers
        self._scratches = scratches
        self._overlays = overlays
        self._in_use = in_use

    def mount_device(self, request: MountDevice) -> None:
        """A verified layer."""
        with self._enforcer.change("MountDevice") as policy:
            policy.ask("mount_device", decisions.mount_device(request))
            self.refuse_used_disk(request.lun)
            self._layers.attach(request)

    def unmount_device(self, target: LayerTarget) -> None:
        """Refused while a container stands on the layer."""
        with self._enforcer.change("UnmountDevice") as policy:
            policy.ask("unmount_device", decisions.unmount_device(target))
            if self._overlays.uses(target):
                raise FailedPrecondition("the layer is in use by a root file system")
            must(lambda: self._layers.detach(target))

    def mount_scratch(self, request: MountScratch) -> None:
        """Writable space for one container."""
        with self._enforcer.change("MountScratch") as policy:
            policy.ask("rw_mount_device", decisions.rw_mount_device(request.container))
            policy.ask("scratch_mount", decisions.scratch_mount(request.container))
            if request.lun is not None:
                self.refuse_used_disk(request.lun)
            self._scratches.attach(request)

    def unmount_scratch(self, container: ContainerId) -> None:
        """Refused while the container's overlay is mounted."""
        with self._enforcer.change("UnmountScratch") as policy:
            policy.ask("scratch_unmount", decisions.scratch_unmount(container))
            policy.ask("rw_unmount_device", decisions.rw_unmount_device(container))
            if self._overlays.exists(container):
                raise FailedPrecondition("the scratch space is in use by a root file system")
            must(lambda: self._scratches.detach(container))

    def mount_overlay(self, request: MountOverlay) -> None:
        """A container's root file system."""
        with self._enforcer.change("MountOverlay") as policy:
            policy.ask("mount_overlay", decisions.mount_overlay(request))
            if request.user_namespace is not None:
                policy.require_open_door("a user namespace")
            if not self._scratches.exists(request.container):
                raise FailedPrecondition("the container has no scratch space")
            self._overlays.attach(request.container, request.layers, request.user_namespace)

    def unmount_overlay(self, container: ContainerId) -> None:
        """Refused while the container exists."""
        with self._enforcer.change("UnmountOverlay") as policy:
            policy.ask("unmount_overlay", decisions.unmount_overlay(container))
            if container in self._in_use:
                raise FailedPrecondition("the root file system is in use by a container")
            must(lambda: self._overlays.detach(container))

    def refuse_used_disk(self, lun: int) -> None:
        """Raises `FailedPrecondition` for a disk that is attached already."""
        if self._layers.uses(lun) or self._scratches.uses(lun):
            raise FailedPrecondition(f"the disk at LUN {lun} is in use already")

    def has_overlay(self, container: ContainerId) -> bool:
        """Whether the container has a root file system."""
        return self._overlays.exists(container)

    def user_namespace(self, container: ContainerId) -> UserNamespace | None:
        """That with which its root file system was mounted."""
        return self._overlays.user_namespace(container)
