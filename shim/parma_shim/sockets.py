# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: SIM105 - importing contextlib takes longer than all that is done here
"""The shim's listening socket: found by its path, shared by the containers of a group (tier 0).

The path is a hash of containerd's address, the namespace and the group's id, as those may be longer than a socket
path. kubelet starts a pod's containers in parallel, so looking and binding happen under a lock: ``flock`` on the
directory, which leaves no lock file behind.
"""

import _socket
import fcntl
import posix

from . import bundle
from .digest import hex_digest

BACKLOG = 128
_MAXIMUM_PATH = 105  # bytes; Go's limit, two less than Linux's
_DIRECTORY_FLAGS = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC


def socket_path(directory: str, grpc_address: str, namespace: str, group: str) -> str:
    """Where the shim of that group listens.

    Raises:
        Malformed: the directory's name is too long for a unix socket.
    """
    path = f"{directory}/{hex_digest(f'parma/{grpc_address}/{namespace}/{group}')}"
    if _length(path) > _MAXIMUM_PATH:
        short = f"{directory}/{hex_digest(f'parma/{grpc_address}/{namespace}/{group}')[:24]}"
        if _length(short) > _MAXIMUM_PATH:
            from parma_wire.errors import Malformed

            raise Malformed(f"the socket directory's name is too long: {directory}", expected="at most 80 bytes")
        return short
    return path


def listen_or_join(path: str) -> "_socket.socket | None":
    """A new socket listening at ``path``, or ``None`` when a living shim already does.

    Raises:
        OSError: the directory cannot be made or the socket not bound.
    """
    lock = _open_directory(_directory(path))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _answers(path):
            return None
        return _listen(path)
    finally:
        posix.close(lock)


def remove_if_dead(path: str) -> None:
    """Unlinks a socket that nobody listens on; a living one and a missing one are left alone."""
    try:
        lock = posix.open(_directory(path), _DIRECTORY_FLAGS)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(path):
            _unlink(path)
    finally:
        posix.close(lock)


def _open_directory(path: str) -> int:
    """A descriptor of the directory, made when it is missing."""
    try:
        return posix.open(path, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        bundle.make_directories(path)
    return posix.open(path, _DIRECTORY_FLAGS)


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _length(path: str) -> int:
    """In bytes, as the kernel counts."""
    return len(path.encode(errors="surrogateescape"))


def _listen(path: str) -> "_socket.socket":
    _unlink(path)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    before = posix.umask(0o177)
    try:
        listener.bind(path)
    finally:
        posix.umask(before)
    listener.listen(BACKLOG)
    return listener


def _answers(path: str) -> bool:
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    finally:
        probe.close()
    return True


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
