# SPDX-License-Identifier: Apache-2.0
"""What a VM's network left in a network namespace of the host, and its removal.

A VM's taps go with QEMU, whose descriptors they are. What stays is the redirection on the namespace's own interfaces:
one ingress qdisc each, with the filters in it. Used by ``delete``, so only C modules are imported here; ctypes only
where the interpreter has no ``setns`` (before Python 3.12) and there is something to remove.

File ``<VM's directory>/network``::

    parma-network 1
    <path of the namespace>
    <device>:<inode>        which one it was: a path like /proc/<pid>/ns/net may lead to another meanwhile
    <index> ...             of the interfaces with a redirection
"""

from __future__ import annotations

import _socket
import _struct
import _thread
import posix

RECORD = "network"
HEADER = "parma-network 1"
CLONE_NEWNET = 0x40000000

_MAX_RECORD = 8192
_AF_NETLINK = 16
_NETLINK_ROUTE = 0
_RTM_DELQDISC = 37
_REQUEST_ACK = 0x01 | 0x04
_INGRESS = 0xFFFFFFF1  # TC_H_INGRESS
_HANDLE = 0xFFFF0000


def record(path: str, identity: str, indexes: list[int]) -> str:
    """The text of the file."""
    return f"{HEADER}\n{path}\n{identity}\n{' '.join(map(str, indexes))}\n"


def identity(namespace: int) -> str:
    """Which namespace a descriptor is of, for as long as it exists."""
    found = posix.fstat(namespace)
    return f"{found.st_dev}:{found.st_ino}"


def enter(namespace: int) -> None:
    """Moves the calling thread to the network namespace that the descriptor is of. Raises OSError."""
    setns = getattr(posix, "setns", None)
    if setns is not None:
        setns(namespace, CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number))


def leave() -> None:
    """Moves the calling thread to a new network namespace. Raises OSError."""
    unshare = getattr(posix, "unshare", None)
    if unshare is not None:
        unshare(CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number))


def remove_redirection(file: str) -> None:
    """Remove what the file lists; nothing there is fine, and so is a namespace that is gone."""
    try:
        fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        lines = posix.read(fd, _MAX_RECORD).decode(errors="surrogateescape").split("\n")
    finally:
        posix.close(fd)
    if len(lines) < 4 or lines[0] != HEADER:
        return
    try:
        namespace = posix.open(lines[1], posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        if identity(namespace) == lines[2]:
            indexes = [int(word) for word in lines[3].split(" ") if word.isdigit()]
            _on_thread(namespace, indexes)
    finally:
        posix.close(namespace)


def _on_thread(namespace: int, indexes: list[int]) -> None:
    """On a thread that ends: the caller's stays in its own namespace."""
    ended = _thread.allocate_lock()
    ended.acquire()

    def work() -> None:
        try:
            enter(namespace)
            _remove(indexes)
        except OSError:
            pass  # the namespace goes with whoever made it
        finally:
            ended.release()

    _thread.start_new_thread(work, ())
    ended.acquire()


def _remove(indexes: list[int]) -> None:
    netlink = _socket.socket(_AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        netlink.settimeout(1.0)
        netlink.bind((0, 0))
        for sequence, index in enumerate(indexes):
            body = _struct.pack("=BxxxiIII", 0, index, _HANDLE, _INGRESS, 0)
            netlink.send(_struct.pack("=IHHII", 16 + len(body), _RTM_DELQDISC, _REQUEST_ACK, sequence, 0) + body)
            netlink.recv(4096)  # done, or there is none: both are what is wanted
    finally:
        netlink.close()
