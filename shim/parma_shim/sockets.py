# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH103, PTH108, PTH110, PTH120, SIM105
# Tier 0: importing pathlib and contextlib takes longer than all that is done here.
"""The shim's listening socket: found by its path, shared by the containers of a group (tier 0).

The path is a hash of containerd's address, the namespace and the group's id, as those may be longer than a socket
path. kubelet starts a pod's containers in parallel, so looking and binding happen under a lock: ``flock`` on the
directory, which leaves no lock file behind.
"""

import _socket
import fcntl
import os

from .digest import hex_digest

BACKLOG = 128
_MAXIMUM_PATH = 105  # bytes; Go's limit, two less than Linux's


def socket_path(directory: str, grpc_address: str, namespace: str, group: str) -> str:
    """Where the shim of that group listens.

    Raises:
        Malformed: the directory's name is too long for a unix socket.
    """
    path = f"{directory}/{hex_digest(f'parma/{grpc_address}/{namespace}/{group}')}"
    if len(os.fsencode(path)) > _MAXIMUM_PATH:
        short = f"{directory}/{hex_digest(f'parma/{grpc_address}/{namespace}/{group}')[:24]}"
        if len(os.fsencode(short)) > _MAXIMUM_PATH:
            from parma_wire.errors import Malformed

            raise Malformed(f"the socket directory's name is too long: {directory}", expected="at most 80 bytes")
        return short
    return path


def listen_or_join(path: str) -> "_socket.socket | None":
    """A new socket listening at ``path``, or ``None`` when a living shim already does.

    Raises:
        OSError: the directory cannot be made or the socket not bound.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o711, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _answers(path):
            return None
        return _listen(path)
    finally:
        os.close(lock)


def remove_if_dead(path: str) -> None:
    """Unlinks a socket that nobody listens on; a living one and a missing one are left alone."""
    if not os.path.exists(path):
        return
    lock = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(path):
            _unlink(path)
    finally:
        os.close(lock)


def _listen(path: str) -> "_socket.socket":
    _unlink(path)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
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
        os.unlink(path)
    except FileNotFoundError:
        pass
