# SPDX-License-Identifier: Apache-2.0
"""``start``: join the group's shim or become it; the answer goes to standard output (tier 0).

containerd waits for the end of output, takes standard error for part of the answer, and dials at once. Hence: the
socket listens before anything is printed, the parent prints with one write and ends, and the child lets go of file
descriptors 0 to 2 before it does anything else. What takes long (imports, configuration) happens in the child, while
containerd's connection waits in the socket's backlog.
"""

import _socket
import posix

from . import bootstrap, bundle, sockets, task_api
from .flags import Invocation

PROTOCOL = "ttrpc"


def run(call: Invocation, config: str, output: int) -> None:
    """Answers on the file descriptor ``output``. Does not return in either process after a fork.

    Args:
        config: path of the host's configuration, "" for the default; the runtime options of containerd may name
            another one.

    Raises:
        ParmaError, OSError: nothing was started, or what was is gone again.
    """
    boot = bootstrap.from_start(call, bootstrap.environment(), bootstrap.read_stdin())
    boot.config_path = boot.config_path or config
    here = posix.getcwd()
    group = bundle.group_of(here, boot.id)
    path = sockets.socket_path(boot.socket_dir, boot.grpc_address, boot.namespace, group)
    version = task_api.version_to_offer(boot, boot.config_path)
    listener = sockets.listen_or_join(path)
    if listener is None:
        bundle.write_address(here, f"unix://{path}")
        _print(output, answer(version, path))
        return
    try:
        bundle.write_address(here, f"unix://{path}")
        bundle.write_state(here, bundle.State(socket=path))
        answered, unanswered = posix.pipe()
        pid = posix.fork()
    except BaseException:
        posix.unlink(path)
        raise
    if pid == 0:
        posix.close(unanswered)
        _become_daemon(boot, group, here, path, listener, answered)
    _finish_parent(boot, pid, path, output, answer(version, path))


def answer(version: int, path: str) -> bytes:
    """What is printed: JSON, or for containerd 1.6 the plain address."""
    if version == 1:
        return f"unix://{path}".encode()
    return f'{{"version":{version},"address":"unix://{path}","protocol":"{PROTOCOL}"}}'.encode()


def _finish_parent(boot: bootstrap.Bootstrap, child: int, path: str, output: int, text: bytes) -> None:
    try:
        if boot.shim_cgroup:
            join_cgroup(boot.shim_cgroup, child)
        _print(output, text)
    except BaseException:
        posix.kill(child, 9)
        posix.unlink(path)
        raise
    posix._exit(0)  # noqa: SLF001 - nothing to finalise, and 2 ms saved


def _become_daemon(
    boot: bootstrap.Bootstrap, group: str, here: str, path: str, listener: "_socket.socket", answered: int
) -> None:
    """The child: detach, then load the rest. Ends with the process.

    ``answered`` reaches its end of file when the parent has exited. Loading waits for that, as containerd does: both
    at once would share the processor.
    """
    status = 1
    try:
        posix.setsid()
        null = posix.open("/dev/null", posix.O_RDWR)
        for descriptor in (0, 1, 2):
            posix.dup2(null, descriptor)
        posix.read(answered, 1)
        posix.closerange(3, listener.fileno())
        posix.closerange(listener.fileno() + 1, 1024)
        posix.chdir("/")  # the bundle is containerd's to remove
        _raise_oom_score()
        from .lean import prepare

        prepare()
        from .daemon import run as run_daemon

        status = run_daemon(boot, group=group, bundle_dir=here, socket_path=path, listener_fd=listener.detach())
    finally:
        posix._exit(status)  # noqa: SLF001


def _raise_oom_score() -> None:
    """One more than containerd's: under memory pressure the shim goes before containerd does."""
    try:
        with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
            score = int(file.read(16) or b"0")
            file.seek(0)
            file.write(b"%d" % min(score + 1, 1000))
    except OSError:
        pass  # not allowed in some sandboxes; not worth a failure


def join_cgroup(path: str, pid: int, root: str = "/sys/fs/cgroup") -> None:
    """Moves a process to an existing cgroup, version 2 or all hierarchies of version 1 that have it.

    Raises:
        NotFound: no hierarchy has it.
    """
    unified = _exists(f"{root}/cgroup.controllers")
    hierarchies = [root] if unified else [f"{root}/{name}" for name in sorted(posix.listdir(root))]
    joined = False
    for hierarchy in hierarchies:
        procs = f"{hierarchy}/{path.strip('/')}/cgroup.procs"
        if _exists(procs):
            with open(procs, "wb", buffering=0) as file:
                file.write(b"%d" % pid)
            joined = True
    if not joined:
        from parma_wire.errors import NotFound

        raise NotFound(f"the shim's cgroup {path} does not exist", hint="shim_cgroup of the runtime's options")


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    return True


def _print(output: int, text: bytes) -> None:
    posix.write(output, text)
