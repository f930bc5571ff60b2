# SPDX-License-Identifier: Apache-2.0
"""Files that the host provides for containers to mount: small, regular, and where the policy lets it.

::

    PutFile* (pieces, in guest memory)  -->  ProvideFiles: the policy decides  -->  below the sandbox's own directory

They become files of the guest, so that the host changes nothing once it has given them. What it may change, it gives
anew, and the policy is asked anew. Each has the extended attribute `ORIGIN`, whoever looks.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from parma_guest import paths
from parma_guest.generated import GENERATED
from parma_guest.values import ContainerId, GuestPath
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed
from parma_wire.limits import MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES, POLICY_CHUNK

ORIGIN: Final = "user.parma.origin"
MAX_SOURCES: Final = 128
MAX_ALL_BYTES: Final = 32 << 20
_MAX_ID: Final = 2**31 - 1
_MAX_DEPTH: Final = 16

_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_.~-]{0,252}"
_SOURCES: Final = re.compile(
    r"/etc/(resolv\.conf|hosts|hostname)"
    rf"|/tmp/atlas/(resolvconf|secretsVolume)/{_PART}"
    rf"|/volumes/(configmap|secret|projected|downward-api)/{_PART}"
    rf"|/volume-subpaths/{_PART}/{_PART}/{_PART}|/(termination-log|configs|secrets)/{_PART}"
    r"|/host(/[^/]+)+",
    re.ASCII,
)
"""Where the host may provide anything, below ``sandbox://``. What containers keep for each other is elsewhere."""

_RESOLV_CONF: Final = re.compile(rf"/etc/resolv\.conf|/tmp/atlas/resolvconf/{_PART}", re.ASCII)


class File(NamedTuple):
    """A file, by its path below the source; empty where the source is the file."""

    path: str
    mode: int
    uid: int
    gid: int
    data: bytes

    @property
    def sha256(self) -> str:
        """In hex."""
        return hashlib.sha256(self.data).hexdigest()


class Request(NamedTuple):
    """The staged files are for this source."""

    container: ContainerId
    source: GuestPath
    """Below the sandbox's directory."""
    update: bool


def parse(message: pb.ProvideFilesRequest) -> Request:
    """See `Request`. Raises `Malformed`."""
    source = GuestPath(message.source)
    if not _SOURCES.fullmatch(source):
        raise Malformed("the host may not provide files there", expected="a place of configuration or secrets")
    return Request(ContainerId(message.container_id), source, message.update)


class Staging:
    """Files on their way. Not thread-safe: the enforcer calls it under its lock."""

    def __init__(self) -> None:
        self._files: list[tuple[File, bytearray]] = []
        self._bytes = 0

    def put(self, message: pb.PutFileRequest) -> None:
        """A piece: of a new file at offset 0, else of the last one. Raises `Malformed`."""
        if len(message.data) > POLICY_CHUNK:
            raise Malformed("piece of a file has a bad size", expected=f"at most {POLICY_CHUNK} bytes")
        if message.offset == 0:
            self._begin(message)
        elif not self._files or self._files[-1][0].path != message.name or not message.data:
            raise Malformed("piece of a file is out of order")
        data = self._files[-1][1]
        if message.offset != len(data):
            raise Malformed("piece of a file is out of order", expected=f"offset {len(data)}")
        self._bytes += len(message.data)
        if len(data) + len(message.data) > MAX_FILE_BYTES or self._bytes > MAX_FILES_BYTES:
            self.take()
            raise Malformed("a file is too large", expected=f"at most {MAX_FILE_BYTES} bytes, {MAX_FILES_BYTES} in all")
        data += message.data

    def take(self) -> tuple[File, ...]:
        """The files, which are then forgotten here. Raises `Malformed` for what is no tree of files."""
        files, self._files, self._bytes = self._files, [], 0
        found = tuple(file._replace(data=bytes(data)) for file, data in files)
        names = {file.path for file in found}
        parents = {path.rpartition("/")[0] for path in names for path in _prefixes(path)}
        if len(names) != len(found) or ("" in names and len(found) > 1) or (names & parents) - {""}:
            raise Malformed("files have the same name, or one is where another's directory is")
        return found

    def _begin(self, message: pb.PutFileRequest) -> None:
        if len(self._files) >= MAX_FILES:
            self.take()
            raise Malformed("too many files", expected=f"at most {MAX_FILES}")
        if message.name:
            GuestPath(f"/{message.name}")
            if message.name.count("/") >= _MAX_DEPTH:
                raise Malformed("the path of a file is too deep")
        if message.uid > _MAX_ID or message.gid > _MAX_ID:
            raise Malformed("owner of a file is out of range")
        # Nothing runs with the rights of a file's owner that the host has chosen.
        file = File(message.name, message.mode & 0o777, message.uid, message.gid, b"")
        self._files.append((file, bytearray()))


def checked(source: str, files: Sequence[File]) -> tuple[File, ...]:
    """The files as they are to be: those with a meaning of their own are parsed and written anew."""
    destination = "/etc/resolv.conf" if _RESOLV_CONF.fullmatch(source) else source
    generate = GENERATED.get(destination)
    if generate is None:
        return tuple(files)
    if len(files) != 1 or files[0].path:
        raise Malformed("this is one file")
    return (files[0]._replace(data=generate(files[0].data), mode=0o644, uid=0, gid=0),)


class Policy(Protocol):
    """What is needed of `parma_guest.enforcer.Asker`."""

    def ask(self, point: str, request: Mapping[str, object]) -> object:
        """Raises `Denied`."""


class FileSystem(Protocol):
    """What is needed of the guest's."""

    def prepare_bind(self, base: str, source: str) -> None:
        """Makes directories down to ``source``, following no link."""

    def open_beneath(self, root: str, path: str, flags: int = os.O_RDONLY) -> int:
        """Opens ``path`` below ``root``, following no link."""


class Provided:
    """What the host has provided. Called under the enforcer's lock."""

    def __init__(self, system: FileSystem) -> None:
        self._system = system
        self._sources: dict[tuple[ContainerId, str], tuple[File, ...]] = {}
        self._numbers = itertools.count()

    def require_room(self, files: Sequence[File]) -> None:
        """Raises `FailedPrecondition` when all that there is would be too much with these."""
        total = sum(len(file.data) for known in (*self._sources.values(), tuple(files)) for file in known)
        if total > MAX_ALL_BYTES or len(self._sources) >= MAX_SOURCES:
            raise FailedPrecondition("the host has provided too many files", expected=f"{MAX_ALL_BYTES} bytes in all")

    def write(self, sandbox: ContainerId, source: str, files: Sequence[File]) -> None:
        """Anew, or over what was there. Raises OSError and `Malformed`."""
        base = paths.sandbox_mounts(sandbox)
        before = self._sources.get((sandbox, source), ())
        for file in files:
            place = f"{source}/{file.path}" if file.path else source
            parent, _, name = place.rpartition("/")
            self._system.prepare_bind(base, base + parent)
            directory = self._system.open_beneath(base, parent.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                # A file that is mounted by itself stays the same one; in a directory the new one takes the old one's
                # place, so that nobody reads half of each.
                if not file.path and before:
                    self._overwrite(base, place, file)
                else:
                    self._replace(directory, name, file)
            finally:
                os.close(directory)
        if not files:
            self._system.prepare_bind(base, base + source)
        kept = {file.path for file in files}
        for gone in (file.path for file in before if file.path not in kept):
            self._remove(base, f"{source}/{gone}")
        self._sources[sandbox, source] = tuple(files)

    def check_mount(self, sandbox: ContainerId, destination: str, source: str) -> None:
        """Raises `Denied` where a container would have something of the host's that is for another place."""
        below = source.removeprefix(paths.sandbox_mounts(sandbox))
        if destination in GENERATED:
            made = "/etc/resolv.conf" if _RESOLV_CONF.fullmatch(below) else below
            if made != destination or (sandbox, below) not in self._sources:
                raise Denied(f"{destination} can only be the file of that name that the host provides")

    def _replace(self, directory: int, name: str, file: File) -> None:
        temporary = f".parma-{next(self._numbers)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            _fill(descriptor, file)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)

    def _overwrite(self, base: str, place: str, file: File) -> None:
        descriptor = self._system.open_beneath(base, place.lstrip("/"), os.O_WRONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Malformed("what was a file is one no longer")
            os.ftruncate(descriptor, 0)
            _fill(descriptor, file)
        finally:
            os.close(descriptor)

    def _remove(self, base: str, place: str) -> None:
        parent, _, name = place.rpartition("/")
        with suppress(FileNotFoundError):
            directory = self._system.open_beneath(base, parent.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)


def _fill(descriptor: int, file: File) -> None:
    view = memoryview(file.data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fchown(descriptor, file.uid, file.gid)
    os.fchmod(descriptor, file.mode)
    with suppress(OSError):  # for whoever looks; nothing depends on it
        os.setxattr(descriptor, ORIGIN, b"host")


def _prefixes(path: str) -> list[str]:
    """The path and its parents, but for the empty one."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def document(sandbox: ContainerId, request: Request, files: Sequence[File]) -> Mapping[str, object]:
    """Input of ``provide_files``."""
    directory = paths.sandbox_mounts(sandbox)
    return {
        "containerID": str(request.container),
        "sandboxDir": directory,
        "source": directory + request.source,
        "files": [{"path": file.path, "sha256": file.sha256} for file in files],
        "update": request.update,
    }


class HostFiles:
    """Staged and provided files of the group."""

    def __init__(self, system: FileSystem) -> None:
        self.staging: Final = Staging()
        self.provided: Final = Provided(system)

    def provide(self, message: pb.ProvideFilesRequest, policy: Policy, sandbox: ContainerId | None) -> None:
        """Raises `Malformed`, `FailedPrecondition` and `Denied`; the staged files are gone then."""
        staged = self.staging.take()
        request = parse(message)
        files = checked(request.source, staged)
        owner = sandbox or request.container
        self.provided.require_room(files)
        policy.ask("provide_files", document(owner, request, files))
        self.provided.write(owner, request.source, files)
