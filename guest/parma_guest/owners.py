# SPDX-License-Identifier: Apache-2.0
"""User namespaces of containers, and layers whose owners are seen through one.

A file of the image that belongs to 0 belongs to the container's root, whichever number that is in the guest. So below a
container with a user namespace each layer is mounted once more, idmapped (mount_setattr(2)): what dm-verity verifies
stays the same, and nothing is copied or chowned. Only the mount knows the mapping; it goes as soon as the overlay that
stands on it is there, which keeps clones of its own.

A user namespace exists only as long as a process or a descriptor holds it: a helper makes it, and waits.
"""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from parma_guest import paths
from parma_guest.undo import CleanupFailed, Undo
from parma_wire.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from parma_guest.reaper import Child

MAX_MAPPINGS: Final = 16
_NUMBERS: Final = 2**32 - 1  # the last one means "none"
_TIMEOUT: Final = 30.0
_HELPER: Final = "import os; os.unshare(os.CLONE_NEWUSER); os.write(1, b'.'); os.read(0, 1)"


class IdMapping(NamedTuple):
    """``size`` numbers from ``inside`` on, in the container, are those from ``outside`` on in the guest."""

    inside: int
    outside: int
    size: int


class UserNamespace(NamedTuple):
    """Made by `parse`: both kinds have mappings, none of which overlap."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]


def parse(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> UserNamespace | None:
    """None when there are no mappings. Raises `Malformed`."""
    if not uids and not gids:
        return None
    return UserNamespace(_mappings(uids, "user"), _mappings(gids, "group"))


def outside(mappings: Sequence[IdMapping], number: int) -> int | None:
    """The number in the guest."""
    for mapping in mappings:
        if mapping.inside <= number < mapping.inside + mapping.size:
            return mapping.outside + number - mapping.inside
    return None


def _mappings(found: Sequence[IdMapping], what: str) -> tuple[IdMapping, ...]:
    if not 1 <= len(found) <= MAX_MAPPINGS:
        raise Malformed(f"a user namespace has a bad number of {what} id mappings", expected=f"1 to {MAX_MAPPINGS}")
    for mapping in found:
        if mapping.size < 1 or max(mapping.inside, mapping.outside) + mapping.size > _NUMBERS:
            raise Malformed(f"a {what} id mapping is out of range")
    for side in (0, 1):
        ends = sorted((mapping[side], mapping[side] + mapping.size) for mapping in found)
        if any(end > start for (_, end), (start, _) in itertools.pairwise(ends)):
            raise Malformed(f"{what} id mappings overlap")
    return tuple(found)


class IdMounter(Protocol):
    """What is needed of `parma_guest.syscalls.Kernel`."""

    def make_directory(self, path: str, mode: int) -> None:
        """With its parents."""

    def mount_idmapped(self, source: str, target: str, namespace: int) -> None:
        """A read-only clone of the mount."""

    def unmount(self, target: str) -> None:
        """umount2(2)."""

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """chown(2)."""


class Owners:
    """Sees layers through user namespaces. Under the enforcer's lock: there is one set of places."""

    def __init__(self, kernel: IdMounter, spawn: Callable[[Sequence[str], tuple[int, int, int]], Child]) -> None:
        self._kernel = kernel
        self._spawn = spawn

    @contextmanager
    def mapped(self, layers: Sequence[str], upper: str, namespace: UserNamespace) -> Iterator[tuple[str, ...]]:
        """Where the layers are, seen that way; ``upper``, a new directory, gets the owner of the container's root."""
        places = tuple(f"{paths.OWNERS}/{number}" for number, _ in enumerate(layers))
        with Undo() as undo:
            with self._namespace(namespace) as descriptor:
                for layer, place in zip(layers, places, strict=True):
                    self._mount(layer, place, descriptor)
                    undo.add(partial(self._kernel.unmount, place))
            uid, gid = outside(namespace.uids, 0), outside(namespace.gids, 0)
            if uid is not None and gid is not None:
                self._kernel.set_owner(upper, uid, gid)
            yield places
        try:
            for place in places:
                self._kernel.unmount(place)
        except OSError as error:
            raise CleanupFailed("a layer that was mounted for a user namespace cannot be unmounted") from error

    def _mount(self, layer: str, place: str, namespace: int) -> None:
        self._kernel.make_directory(place, 0o700)
        try:
            self._kernel.mount_idmapped(layer, place, namespace)
        except OSError as error:
            raise Unavailable("a layer cannot be mounted for a user namespace") from error

    @contextmanager
    def _namespace(self, wanted: UserNamespace) -> Iterator[int]:
        """A descriptor of a namespace with these mappings."""
        stay, go = os.pipe2(os.O_CLOEXEC)
        ready, made = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            try:
                child = self._spawn([paths.PYTHON, "-IS", "-c", _HELPER], (stay, made, null))
            finally:
                for descriptor in (stay, made, null):
                    os.close(descriptor)
            try:
                if not select.select([ready], [], [], _TIMEOUT)[0] or os.read(ready, 1) != b".":
                    raise Unavailable("a user namespace cannot be made")
                process = Path(f"/proc/{child.pid}")
                for name, mappings in (("uid_map", wanted.uids), ("gid_map", wanted.gids)):
                    lines = "".join(f"{inside} {out} {size}\n" for inside, out, size in mappings)
                    (process / name).write_text(lines)
                namespace = os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise Unavailable("a user namespace cannot be made") from error
            try:
                yield namespace
            finally:
                os.close(namespace)
        finally:
            with suppress(OSError):
                os.close(go)  # the helper ends
            os.close(ready)
