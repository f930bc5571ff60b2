# SPDX-License-Identifier: Apache-2.0
"""The few things that the container group wants of the guest's kernel besides mounting (`parma_guest.group.Host`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from parma_guest import paths, pause, users
from parma_guest.cgroups import Cgroup
from parma_guest.syscalls import MS_BIND, MS_REC, Kernel
from parma_guest.undo import CleanupFailed
from parma_guest.values import ContainerId, User
from parma_wire.errors import Malformed


class GuestHost:
    """The running guest."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def identity(self, container: ContainerId, user: User) -> users.Identity:
        """Names from the container's own files, opened without leaving its root."""
        root = paths.rootfs(container)
        return users.look_up(user, lambda path: self._kernel.open_in_root(root, path))

    def cgroup(self, container: ContainerId) -> Cgroup:
        """The container's cgroup."""
        return Cgroup.of(container)

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` below ``root``; any symbolic link on the way is an error."""
        return self._kernel.open_beneath(root, path, flags)

    def prepare_bind(self, base: str, source: str) -> None:
        """Makes the directories down to ``source``, following no symbolic link; an existing file is taken as it is."""
        self._kernel.make_directory(base, 0o711)
        relative = source.removeprefix(base).strip("/")
        parts = relative.split("/")
        for depth in range(1, len(parts) + 1):
            self._make_one(base, "/".join(parts[: depth - 1]) or ".", parts[depth - 1])
        os.close(self._kernel.open_beneath(base, relative, os.O_PATH))

    def write_pause(self, root: str, program: bytes) -> None:
        """A root directory with the pod's program and nothing else."""
        self._kernel.make_directory(root, 0o755)
        descriptor = os.open(f"{root}{pause.PROGRAM}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o555)
        with open(descriptor, "wb") as file:
            file.write(program)

    def set_mode(self, path: str, mode: int) -> None:
        """Permissions of a directory that is the enforcer's own."""
        os.chmod(path, mode)  # noqa: PTH101 - as the rest of this module

    @contextmanager
    def pinned(self, base: str, source: str, place: str) -> Iterator[str]:
        """The source of a bind mount where no container can exchange it: opened once, following no symbolic link, and
        mounted at ``place`` for the while. crun would look the name up again, and a container that shares the directory
        may have put a link there by then.

        Raises OSError, and `CleanupFailed` when it stays mounted.
        """
        descriptor = self._kernel.open_beneath(base, source.removeprefix(base).strip("/"), os.O_PATH)
        try:
            self._kernel.make_directory(paths.PINS, 0o711)
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            if is_directory:
                os.mkdir(place, mode=0o700)  # noqa: PTH102 - as the rest of this module
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            try:
                self._kernel.mount(f"/proc/self/fd/{descriptor}", place, "", MS_BIND | MS_REC)
                try:
                    yield place
                finally:
                    self._release(place)
            finally:
                (os.rmdir if is_directory else os.unlink)(place)
        finally:
            os.close(descriptor)

    def _release(self, place: str) -> None:
        try:
            self._kernel.unmount_tree(place)
        except OSError as error:
            raise CleanupFailed("the source of a bind mount stays mounted") from error

    def _make_one(self, base: str, parent: str, name: str) -> None:
        try:
            directory = self._kernel.open_beneath(base, parent, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise Malformed("the source of a bind mount leads through something that is no directory") from error
        try:
            os.mkdir(name, mode=0o755, dir_fd=directory)
        except FileExistsError:
            return
        finally:
            os.close(directory)
