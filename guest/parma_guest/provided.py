# SPDX-License-Identifier: Apache-2.0
"""Files that the host provides for containers to mount: small, regular, and where the policy lets it.

::

    PutFile* (pieces, in guest memory)  -->  ProvideFiles: the policy decides  -->  below the sandbox's own directory

They become files of the guest, so that the host changes nothing once it has given them. What it may change, it gives
anew, and the policy is asked anew. How they are written: `parma_guest.files`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from parma_guest import paths
from parma_guest.files import File, FileSystem, Tree, prefixes
from parma_guest.generated import GENERATED
from parma_guest.values import ContainerId, GuestPath
from parma_wire import guest_pb2 as pb
from parma_wire.errors import Denied, FailedPrecondition, Malformed
from parma_wire.limits import MAX_FILE_BYTES, MAX_FILES, MAX_FILES_BYTES, POLICY_CHUNK

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

_VOLUMES: Final = re.compile(
    rf"/volumes/(configmap|secret|projected|downward-api)/{_PART}|/tmp/atlas/secretsVolume/{_PART}", re.ASCII
)
"""Those that kubelet changes as a whole."""

_RESOLV_CONF: Final = re.compile(rf"/etc/resolv\.conf|/tmp/atlas/resolvconf/{_PART}", re.ASCII)


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
        parents = {path.rpartition("/")[0] for path in names for path in prefixes(path)}
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


class _Source(NamedTuple):
    files: tuple[File, ...]
    version: str
    """Name of the directory that has them, in a volume of Kubernetes."""


_NOTHING: Final = _Source((), "")


class Provided:
    """What the host has provided. Called under the enforcer's lock."""

    def __init__(self, system: FileSystem) -> None:
        self._system = system
        self._sources: dict[tuple[ContainerId, str], _Source] = {}
        self._trees: dict[ContainerId, Tree] = {}

    def require_room(self, sandbox: ContainerId, source: str, files: Sequence[File]) -> None:
        """Raises `FailedPrecondition` when all that there is would be too much with these in the source's place."""
        others = [known.files for place, known in self._sources.items() if place != (sandbox, source)]
        total = sum(len(file.data) for known in (*others, files) for file in known)
        if total > MAX_ALL_BYTES or len(others) >= MAX_SOURCES:
            raise FailedPrecondition("the host has provided too many files", expected=f"{MAX_ALL_BYTES} bytes in all")

    def write(self, sandbox: ContainerId, source: str, files: Sequence[File]) -> None:
        """Anew, or over what was there. Raises OSError and `Malformed`."""
        before = self._sources.get((sandbox, source), _NOTHING)
        tree = self._trees.get(sandbox)
        if tree is None:
            tree = self._trees[sandbox] = Tree(self._system, paths.sandbox_mounts(sandbox))
        version = ""
        if _VOLUMES.fullmatch(source) and not any(file.path == "" for file in files):
            version = tree.put_volume(source, files, before.files, before.version)
        else:
            tree.put(source, files, before.files)
        self._sources[sandbox, source] = _Source(tuple(files), version)

    def check_mount(self, sandbox: ContainerId, destination: str, source: str) -> None:
        """Raises `Denied` where a container would have something of the host's that is for another place."""
        below = source.removeprefix(paths.sandbox_mounts(sandbox))
        if destination in GENERATED:
            made = "/etc/resolv.conf" if _RESOLV_CONF.fullmatch(below) else below
            if made != destination or (sandbox, below) not in self._sources:
                raise Denied(f"{destination} can only be the file of that name that the host provides")


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
        self.provided.require_room(owner, request.source, files)
        policy.ask("provide_files", document(owner, request, files))
        self.provided.write(owner, request.source, files)
