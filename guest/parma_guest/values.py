# SPDX-License-Identifier: Apache-2.0
"""Types for values that came from the host and have been found to be well formed.

Each is a ``str`` or a frozen record that cannot be built from anything else than valid input, so a function that
takes one needs no check of its own. A malformed value raises `Malformed`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from parma_wire.errors import Malformed

MAX_PATH: Final = 4095
MAX_STRING: Final = 128 * 1024
"""The kernel's limit for one argument or environment variable (MAX_ARG_STRLEN), in bytes."""

MAX_LAYER_NUMBER: Final = 65_535
MAX_DATA_BLOCKS: Final = 128 * 2**30 // 4096
"""A layer image is at most 128 GiB: the limit that is part of how layers are converted."""

_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EXEC_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,76}", re.ASCII)
_ROOT_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LAYER_TARGET: Final = re.compile(r"/run/mounts/scsi/m(0|[1-9][0-9]{0,4})", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class ContainerId(str):
    """64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> ContainerId:
        if not _CONTAINER_ID.fullmatch(text):
            raise Malformed("container id is malformed", expected="64 lower-case hexadecimal digits")
        return super().__new__(cls, text)


class ExecId(str):
    """The name of an additional process; the empty one is the container's init."""

    __slots__ = ()

    def __new__(cls, text: str) -> ExecId:
        if text and not _EXEC_ID.fullmatch(text):
            raise Malformed("exec id is malformed", expected="1 to 76 characters of A-Z a-z 0-9 . _ -")
        return super().__new__(cls, text)

    @property
    def is_init(self) -> bool:
        """True for the container's first process."""
        return not self


class RootHash(str):
    """A dm-verity root hash: 64 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> RootHash:
        if not _ROOT_HASH.fullmatch(text):
            raise Malformed("dm-verity root hash is malformed", expected="64 lower-case hexadecimal digits")
        return super().__new__(cls, text)


class LayerTarget(str):
    """The mount point of a layer: ``/run/mounts/scsi/m<N>`` in its only spelling."""

    __slots__ = ()

    def __new__(cls, text: str) -> LayerTarget:
        found = _LAYER_TARGET.fullmatch(text)
        if not found or int(found[1]) > MAX_LAYER_NUMBER:
            raise Malformed("layer mount point is malformed", expected="/run/mounts/scsi/m<N>")
        return super().__new__(cls, text)

    @property
    def number(self) -> int:
        """N."""
        return int(self.rpartition("/m")[2])


class GuestPath(str):
    """An absolute path with no empty, ``.`` or ``..`` component and no control characters, in its only spelling."""

    __slots__ = ()

    def __new__(cls, text: str) -> GuestPath:
        if not text.startswith("/") or len(text.encode()) > MAX_PATH or _CONTROL.search(text):
            raise Malformed("path is malformed", expected="an absolute path without control characters")
        parts = text.split("/")[1:]
        if text != "/" and any(part in ("", ".", "..") for part in parts):
            raise Malformed("path is not canonical", expected="no '//', '.', '..' and no trailing '/'")
        if any(len(part.encode()) > 255 for part in parts):
            raise Malformed("a component of the path is too long", expected="at most 255 bytes")
        return super().__new__(cls, text)

    def is_below(self, parent: str) -> bool:
        """True for the path itself and everything below it."""
        return self == parent or self.startswith(parent.rstrip("/") + "/")


class WorkingDirectory(str):
    """An absolute path without ``..``, kept as written: the policy compares its text.

    The runtime resolves it after entering the container's root, so a symbolic link cannot lead out of it.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> WorkingDirectory:
        if not text.startswith("/") or len(text.encode()) > MAX_PATH or _CONTROL.search(text):
            raise Malformed("working directory is malformed", expected="an absolute path without control characters")
        if ".." in text.split("/"):
            raise Malformed("working directory contains '..'")
        return super().__new__(cls, text)


class Hostname(str):
    """A host name of RFC 1123 labels, at most 63 bytes in all (the kernel allows 64), or empty."""

    __slots__ = ()

    def __new__(cls, text: str) -> Hostname:
        if text and (len(text) > 63 or not all(_LABEL.fullmatch(label) for label in text.split("."))):
            raise Malformed("hostname is malformed", expected="RFC 1123 labels, at most 63 characters")
        return super().__new__(cls, text)


class VolumeName(str):
    """The name of a pod's volume: an RFC 1123 label in lower case, as Kubernetes has it."""

    __slots__ = ()

    def __new__(cls, text: str) -> VolumeName:
        if not _LABEL.fullmatch(text) or text != text.lower():
            raise Malformed("name of a volume is malformed", expected="a lower-case RFC 1123 label")
        return super().__new__(cls, text)


class User(NamedTuple):
    """Who a process runs as; ``umask`` is a number, 0o022 when the host named none."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    umask: int


class Capabilities(NamedTuple):
    """The five capability sets, as lists because the policy compares their lengths as well."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    inheritable: tuple[str, ...]
    permitted: tuple[str, ...]
    ambient: tuple[str, ...]

    def as_document(self) -> dict[str, list[str]]:
        """The shape that both the policy's input and the OCI spec have."""
        return {
            "bounding": list(self.bounding),
            "effective": list(self.effective),
            "inheritable": list(self.inheritable),
            "permitted": list(self.permitted),
            "ambient": list(self.ambient),
        }


class Rlimit(NamedTuple):
    """One resource limit; both values may be 2**64-1 for none."""

    type: str
    hard: int
    soft: int


class ProcessSpec(NamedTuple):
    """A process as the host wants it; nothing in it has been allowed yet. ``repr`` never shows the environment."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: WorkingDirectory
    user: User
    capabilities: Capabilities
    no_new_privileges: bool
    rlimits: tuple[Rlimit, ...]
    oom_score_adj: int | None
    terminal: bool
    console_size: tuple[int, int]  # width, height in characters
    stdin: bool

    def __repr__(self) -> str:
        return f"ProcessSpec({len(self.args)} args, {len(self.env)} env)"


class MountSpec(NamedTuple):
    """A mount that the host wants in a container in addition to the fixed ones."""

    destination: GuestPath
    type: str
    source: str
    options: tuple[str, ...]


class Resources(NamedTuple):
    """cgroup limits; None or "" leaves the kernel's default. They only concern availability, so no policy is asked."""

    memory_limit: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    pids_limit: int | None = None
    blkio_weight: int | None = None
