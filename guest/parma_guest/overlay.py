# SPDX-License-Identifier: Apache-2.0
"""A container's root file system: verified layers below, its own scratch space above."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from parma_guest import paths, syscalls
from parma_guest.owners import Owners, UserNamespace
from parma_guest.undo import Undo
from parma_guest.values import ContainerId, LayerTarget
from parma_guest.verity import Mounter
from parma_wire.errors import FailedPrecondition, NotFound, Unavailable

_FIXED_OPTIONS: Final = "index=off,metacopy=off,xino=off"


class Overlays:
    """The mounted overlays and the layers under each. Not thread-safe: the enforcer calls it under its lock."""

    def __init__(self, kernel: Mounter, owners: Owners) -> None:
        self._kernel = kernel
        self._owners = owners
        self._layers: dict[ContainerId, tuple[LayerTarget, ...]] = {}
        self._user_namespaces: dict[ContainerId, UserNamespace] = {}

    def attach(
        self, container: ContainerId, layers: Sequence[LayerTarget], user_namespace: UserNamespace | None = None
    ) -> None:
        """Mounts the rootfs; ``layers`` has the top one first, as overlayfs wants it.

        With a user namespace the layers' owners are those that it makes of them.
        """
        if container in self._layers:
            raise FailedPrecondition("the container has a root file system already")
        target = paths.rootfs(container)
        upper = f"{paths.scratch_directory(container)}/upper"
        work = f"{paths.scratch_directory(container)}/work"
        with Undo() as undo:
            for directory in (target, upper, work, *(() if layers else (paths.EMPTY_LAYER,))):
                self._kernel.make_directory(directory, 0o755)
            with self._seen(layers or (paths.EMPTY_LAYER,), upper, user_namespace) as lower:
                data = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},{_FIXED_OPTIONS}"
                try:
                    # nodev: device nodes of an image are not usable; a container has those of its own /dev.
                    self._kernel.mount("overlay", target, "overlay", syscalls.MS_NODEV, data)
                except OSError as error:
                    raise Unavailable("the root file system cannot be mounted") from error
                undo.add(lambda: self._kernel.unmount(target))
        self._layers[container] = tuple(layers)
        if user_namespace is not None:
            self._user_namespaces[container] = user_namespace

    def _seen(
        self, layers: Sequence[str], upper: str, user_namespace: UserNamespace | None
    ) -> AbstractContextManager[Sequence[str]]:
        if user_namespace is None:
            return nullcontext(layers)
        return self._owners.mapped(layers, upper, user_namespace)

    def user_namespace(self, container: ContainerId) -> UserNamespace | None:
        """That with which the container's rootfs was mounted: it can run with no other."""
        return self._user_namespaces.get(container)

    def detach(self, container: ContainerId) -> None:
        """Raises `NotFound`; any other error means that something is left."""
        if container not in self._layers:
            raise NotFound("the container has no root file system")
        self._kernel.unmount(paths.rootfs(container))
        del self._layers[container]
        self._user_namespaces.pop(container, None)

    def exists(self, container: ContainerId) -> bool:
        """True while the container's overlay is mounted."""
        return container in self._layers

    def uses(self, layer: LayerTarget) -> bool:
        """True while a container stands on this layer."""
        return any(layer in layers for layers in self._layers.values())
