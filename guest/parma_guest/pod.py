# SPDX-License-Identifier: Apache-2.0
"""What the containers of a pod share: namespaces, ``/dev/shm``, and empty directories.

::

    CreateSandbox --> MountVolume* --> CreateContainer ... of each container, in any order, again and again

The pod's id is that of the container whose process keeps the namespaces (`parma_guest.pause`). Every emptyDir is a
file system of its own, on an encrypted disk or in guest memory: its size is a limit that no container can get around,
whatever its capabilities. The host gives nothing but the space: what is in it comes from the containers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from parma_guest import paths, pause, syscalls
from parma_guest.requests import CreateSandbox, MountScratch, MountVolume
from parma_guest.scratch import Scratches
from parma_guest.undo import Undo
from parma_guest.values import ContainerId, VolumeName
from parma_guest.verity import Mounter
from parma_wire.errors import AlreadyExists, FailedPrecondition

SHARED_MEMORY_BYTES: Final = 64 << 20
MAX_VOLUMES: Final = 64
_ANYBODY: Final = 0o777
"""Kubernetes gives emptyDirs this mode: the pod's containers may run as different users."""


class PodFiles(Protocol):
    """What a pod needs of the guest's file system besides mounting."""

    def write_pause(self, root: str, program: bytes) -> None:
        """The only program in a root directory of its own."""

    def prepare_bind(self, base: str, source: str) -> None:
        """Makes ``source`` exist below ``base``."""

    def set_mode(self, path: str, mode: int) -> None:
        """Permissions, whatever the umask."""


class Pod:
    """What a group has in common when it is a pod. Not thread-safe: the enforcer calls it under its lock."""

    def __init__(self, kernel: Mounter, files: PodFiles, scratches: Scratches) -> None:
        self.sandbox: ContainerId | None = None
        """The pod's id; None for a group that is none, whose containers share nothing."""
        self._pid = 0
        self._kernel = kernel
        self._files = files
        self._scratches = scratches
        self._volumes: set[VolumeName] = set()

    def prepare(self, request: CreateSandbox) -> Callable[[], None]:
        """What must be there before the pod's process; the function returned takes it back."""
        self._files.write_pause(paths.PAUSE_ROOT, pause.program())
        place = paths.shared_memory(request.sandbox)
        self._kernel.make_directory(place, _ANYBODY)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        self._kernel.mount("tmpfs", place, "tmpfs", flags, f"size={SHARED_MEMORY_BYTES},mode=1777")
        return lambda: self._kernel.unmount(place)

    def begin(self, sandbox: ContainerId, pid: int) -> None:
        """From now on this process keeps the namespaces that containers join."""
        self.sandbox, self._pid = sandbox, pid

    def namespaces(self) -> dict[str, str]:
        """Type and path of those that every container joins."""
        if self.sandbox is None:
            return {}
        return {kind: namespace(self._pid, kind) for kind in pause.SHARED}

    @property
    def shared_memory(self) -> str:
        """Every container's ``/dev/shm``, or "" for one of each container's own."""
        return paths.shared_memory(self.sandbox) if self.sandbox is not None else ""

    def space(self, name: VolumeName) -> ContainerId:
        """The id of a volume's writable space: in form a container's, as policies know no other.

        Raises `FailedPrecondition` where there is no pod.
        """
        if self.sandbox is None:
            raise FailedPrecondition("there is no pod")
        return ContainerId(hashlib.sha256(f"{self.sandbox}/volume/{name}".encode()).hexdigest())

    def mount_volume(self, request: MountVolume) -> None:
        """Makes an emptyDir. All undone when it fails."""
        space = self.space(request.name)
        if request.name in self._volumes:
            raise AlreadyExists("the pod has a volume of this name already")
        if len(self._volumes) >= MAX_VOLUMES:
            raise FailedPrecondition("too many volumes", expected=f"at most {MAX_VOLUMES}")
        assert self.sandbox is not None  # noqa: S101 - `space` has looked
        base = paths.sandbox_mounts(self.sandbox)
        with Undo() as undo:
            self._scratches.attach(MountScratch(space, request.lun, request.memory_bytes))
            undo.add(lambda: self._scratches.detach(space))
            self._files.set_mode(paths.scratch_directory(space), _ANYBODY)
            for directory in paths.empty_dirs(self.sandbox):
                place = f"{directory}/{request.name}"
                self._files.prepare_bind(base, place)
                self._kernel.mount(paths.scratch_directory(space), place, "", syscalls.MS_BIND)
                undo.add(partial(self._kernel.unmount, place))
        self._volumes.add(request.name)

    def require_volume(self, source: str) -> None:
        """Raises `FailedPrecondition` for an emptyDir that was not made: it would have no limit."""
        if self.sandbox is None:
            return
        for directory in paths.empty_dirs(self.sandbox):
            if source.startswith(f"{directory}/") and source.removeprefix(f"{directory}/") not in self._volumes:
                raise FailedPrecondition("the pod has no such volume")


def namespace(pid: int, kind: str) -> str:
    """The path of a process's namespace; ``kind`` as the OCI spec has it."""
    return f"/proc/{pid}/ns/{'net' if kind == 'network' else kind}"
