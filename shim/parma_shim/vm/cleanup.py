# SPDX-License-Identifier: Apache-2.0
"""Removing what a virtual machine left behind, whoever died, at whatever moment.

Used by the ``delete`` command, which runs for every container and is waited for: only C modules are imported here
(reference: containerd runtime v2, ``delete`` contract: idempotent, any subset of the files may be there).

State file ``<directory>/processes``::

    parma-vm 1 starting        what follows may be incomplete: a process may run that is not listed
    parma-vm 1 running         complete
    <pid> <start time>         one line per process; start time is field 22 of /proc/<pid>/stat

File ``<directory>/cgroups``: directories of cgroups that were made for the VM, one per line. Where the shim went
there as well, the directory that it came from follows after a NUL.
File ``<directory>/network``: see ``netns``.

It says ``starting`` before the first process is started. Every process of a VM has its directory in the environment
variable ``PARMA_VM``, by which a process that is not listed is found. What else a shim starts has the shim's process id
in ``PARMA_SHIM``: it may outlive the container, but not keep the container's cgroup.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module; `signal` itself imports enum
import errno
import posix
import select
import time

STATE_FILE = "processes"
CGROUP_FILE = "cgroups"
NETWORK_FILE = "network"
MARKER = "PARMA_VM"
SHIM_MARKER = "PARMA_SHIM"
HEADER_STARTING = "parma-vm 1 starting"
HEADER_RUNNING = "parma-vm 1 running"

_SIGKILL = 9
_MAX_STATE = 4096
_MAX_CGROUPS = 64 * 1024
_CGROUP_SECONDS = 1.0
_CGROUP_PAUSE = 0.01
_MAX_ENVIRONMENT = 128 * 1024
_MAX_DEPTH = 4
_WAIT_MS = 2000
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def destroy_leftovers(directory: object, shim: int = 0) -> None:
    """Kill the VM's processes and remove its directory (a path). Idempotent; nothing there is fine.

    ``shim`` is the process id that the VM's shim has or had.

    Raises OSError when something cannot be removed; everything else is removed before that.
    """
    path = str(directory)
    text = _read(path + "/" + STATE_FILE, _MAX_STATE)
    if text is not None:
        kill_processes(path, text.decode("ascii", "replace"))
    remove_cgroups(path + "/" + CGROUP_FILE, shim)
    if posix.access(path + "/" + NETWORK_FILE, posix.F_OK):
        from . import netns

        netns.remove_redirection(path + "/" + NETWORK_FILE)
    remove_directory(path)


def kill_processes(directory: str, state: str) -> None:
    """Kill what the state file lists and, unless it is complete, what carries the marker; waits until they are gone."""
    lines = state.split("\n")
    pidfds = []
    for line in lines[1:]:
        fields = line.split(" ")
        if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit():
            pidfds.append(_kill(int(fields[0]), fields[1], b""))
    if lines[0] != HEADER_RUNNING:
        marker = (MARKER + "=" + directory).encode()
        pidfds += [_kill(int(name), "", marker) for name in posix.listdir("/proc") if name.isdigit()]
    _wait([fd for fd in pidfds if fd >= 0])


def remove_cgroups(record: str, shim: int = 0) -> None:
    """Remove the cgroup directories that a file lists, one per line, the deepest first; those in use stay.

    The shim with this process id and what it has started, as far as that still runs, leave them before.
    """
    end = time.monotonic() + _CGROUP_SECONDS
    for path, home in _recorded(record):
        _evict(path, home, shim)
        while not _is_removed(path) and time.monotonic() < end:
            time.sleep(_CGROUP_PAUSE)
            _evict(path, home, shim)  # also what was just being started


def leave_cgroups(record: str) -> None:
    """Take this process to where the shim came from: what it starts may outlive the container."""
    for _, home in _recorded(record):
        if home:
            _move(posix.getpid(), home)


def _recorded(record: str) -> list[tuple[str, str]]:
    lines = (_read(record, _MAX_CGROUPS) or b"").decode(errors="surrogateescape").split("\n")
    return [(path, home) for path, _, home in (line.partition("\0") for line in lines) if path]


def _evict(path: str, home: str, shim: int) -> None:
    if not home:
        return
    marker = (SHIM_MARKER + "=" + str(shim)).encode()
    for word in (_read(path + "/cgroup.procs", _MAX_CGROUPS) or b"").split():
        pid = int(word)
        if pid == shim or marker in (_read("/proc/" + str(pid) + "/environ", _MAX_ENVIRONMENT) or b"").split(b"\0"):
            _move(pid, home)


def _move(pid: int, home: str) -> None:
    """Into this cgroup, or the nearest one above it that is still there and may hold processes."""
    while home:
        try:
            _write(home + "/cgroup.procs", str(pid).encode())
        except ProcessLookupError:
            return
        except OSError:
            home = home.rpartition("/")[0]
        else:
            return


def _is_removed(path: str) -> bool:
    """False when it is in use: also by a process that has ended, until its parent has taken note of it."""
    try:
        posix.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # One with others in it is not ours to remove.
        return error.errno != errno.EBUSY or _has_children(path)
    return True


def _has_children(path: str) -> bool:
    try:
        names = posix.listdir(path)
    except FileNotFoundError:
        return False
    return any(posix.access(f"{path}/{name}/cgroup.procs", posix.F_OK) for name in names)


def start_time(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat, in clock ticks since boot; empty when there is no such process."""
    stat = _read("/proc/" + str(pid) + "/stat", 4096)
    if stat is None:
        return ""
    # The second field is the program's name in parentheses and may contain anything.
    fields = stat[stat.rfind(b")") + 2 :].split(b" ")
    return fields[19].decode() if len(fields) > 19 else ""


def remove_directory(path: str) -> None:
    """Remove a directory and what is in it, following no link. A missing one is fine."""
    try:
        fd = posix.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(fd, _MAX_DEPTH)
    finally:
        posix.close(fd)
    try:
        posix.rmdir(path)
    except FileNotFoundError:
        return


def _empty(directory: int, depth: int) -> None:
    failure: OSError | None = None
    for name in posix.listdir(directory):
        try:
            try:
                posix.unlink(name, dir_fd=directory)
            except IsADirectoryError:
                if depth == 0:
                    raise
                fd = posix.open(name, _DIRECTORY, dir_fd=directory)
                try:
                    _empty(fd, depth - 1)
                finally:
                    posix.close(fd)
                posix.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            continue  # somebody else cleans up as well
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def _kill(pid: int, expected_start: str, marker: bytes) -> int:
    """Kill a process if it is the one meant; returns its pidfd, or -1.

    The pidfd is opened first: if the number was given to another process meanwhile, the check below sees that one, and
    the signal cannot reach a third.
    """
    try:
        pidfd = posix.pidfd_open(pid)
    except (OSError, OverflowError):
        return -1
    try:
        if expected_start:
            meant = start_time(pid) == expected_start
        else:
            environment = _read("/proc/" + str(pid) + "/environ", _MAX_ENVIRONMENT) or b""
            meant = pid != posix.getpid() and marker in environment.split(b"\0")
        if meant:
            _signal.pidfd_send_signal(pidfd, _SIGKILL)
    except OSError:
        meant = False
    if meant:
        return pidfd
    posix.close(pidfd)
    return -1


def _wait(pidfds: list[int]) -> None:
    """Wait, with a bound, until they are gone: an open socket or file would otherwise outlive this call."""
    end = time.monotonic() + _WAIT_MS / 1000
    for pidfd in pidfds:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0, int((end - time.monotonic()) * 1000)))
        posix.close(pidfd)


def _write(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


def _read(path: str, maximum: int) -> bytes | None:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        return posix.read(fd, maximum)
    except OSError:
        return None
    finally:
        posix.close(fd)
