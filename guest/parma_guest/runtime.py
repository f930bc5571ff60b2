# SPDX-License-Identifier: Apache-2.0
"""crun, with a deadline on every call. What it is told is in files that only the enforcer can write."""

from __future__ import annotations

import array
import errno
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from parma_guest import entering, paths
from parma_guest.cgroups import Cgroup
from parma_guest.reaper import Child, Reaper
from parma_guest.stdio import Stdio
from parma_guest.undo import Undo
from parma_guest.values import ContainerId
from parma_wire.errors import DeadlineExceeded, NotFound, ParmaError, Unavailable

CALL_TIMEOUT: Final = 60.0
"""Seconds for one call of crun. Long, because a TCG guest on a busy host is slow; finite, because it holds the lock."""

AFTER_A_HANG: Final = 1 / 6
"""How much of that an entry into a container may take after one that took all of it, until one succeeds: a container
that leaves what enters it no processor time shall not hold the lock for so long again and again."""

LOOK_EVERY: Final = 0.25
"""Seconds between looks at what crun has put into a container, once crun has taken that long."""

_END_TIMEOUT: Final = 60.0
"""Seconds for what was killed to be gone."""

_KILLED: Final = 128
"""What the number of the signal is added to in a status: `parma_guest.reaper`."""

_MAX_MESSAGE: Final = 512
_MAX_LOG: Final = 64 * 1024


class RuntimeFailed(ParmaError):  # named as its siblings in parma_wire.errors
    """crun refused; its reason is in the message. For a container that cannot be started this is the user's answer."""


class Launched(NamedTuple):
    """A process that exists: created (init, which waits for `Crun.start`) or running (exec)."""

    child: Child
    pidfd: int | None
    stdio: Stdio


class StdioPlan(NamedTuple):
    """What stdio a process gets. Not ``allowed``: /dev/null."""

    allowed: bool
    terminal: bool
    stdin: bool
    console_size: tuple[int, int]

    def open(self) -> tuple[Stdio, tuple[int, int, int]]:
        """The guest's ends and the descriptors for crun."""
        if not self.allowed:
            return Stdio.nothing()
        return Stdio.terminal() if self.terminal else Stdio.pipes(stdin=self.stdin)


class Crun:
    """Creates, starts, extends, changes and deletes containers."""

    def __init__(
        self,
        reaper: Reaper,
        *,
        private: str = paths.PRIVATE,
        timeout: float = CALL_TIMEOUT,
        cgroup: Callable[[ContainerId], Cgroup] = Cgroup.of,
    ) -> None:
        self._reaper = reaper
        self._private = Path(private)
        self._timeout = timeout
        self._cgroup = cgroup
        self._numbers = itertools.count()
        self._hung: set[ContainerId] = set()

    def create(self, container: ContainerId, spec: Mapping[str, Any], plan: StdioPlan) -> Launched:
        """The container in state ``created``. Raises `RuntimeFailed`; nothing is left then."""
        bundle = self._private / "c" / container
        with Undo() as undo:
            bundle.mkdir(mode=0o700, parents=True)
            undo.add(lambda: _remove_bundle(bundle))
            (bundle / "config.json").write_text(json.dumps(spec))
            undo.add(lambda: self._discard(container))
            return self._launch(["create", "--bundle", str(bundle)], container, plan)

    def start(self, container: ContainerId) -> None:
        """Lets the created init run its program."""
        self._call(["start", container], entered=container)

    def execute(self, container: ContainerId, process: Mapping[str, Any], plan: StdioPlan) -> Launched:
        """An additional process. Raises `RuntimeFailed`."""
        document = self._temporary("process.json")
        document.write_text(json.dumps(process))
        try:
            return self._launch(["exec", "--detach", "--process", str(document)], container, plan)
        finally:
            document.unlink()

    def update(self, container: ContainerId, resources: Mapping[str, Any]) -> None:
        """Changes cgroup limits; ``resources`` as in the OCI spec."""
        document = self._temporary("resources.json")
        document.write_text(json.dumps(resources))
        try:
            self._call(["update", "--resources", str(document), container])
        finally:
            document.unlink()

    def delete(self, container: ContainerId) -> None:
        """Removes what is left of a stopped container; kills one that was never started."""
        self._call(["delete", "--force", container])
        self._hung.discard(container)
        _remove_bundle(self._private / "c" / container)

    def _launch(self, command: Sequence[str], container: ContainerId, plan: StdioPlan) -> Launched:
        pid_file = self._temporary("pid")
        options = ["--pid-file", str(pid_file)]
        stdio, theirs = plan.open()
        console = _ConsoleSocket(self._temporary("console")) if stdio.is_terminal else None
        if console is not None:
            options += ["--console-socket", str(console.path)]
        pidfd: int | None = None
        try:
            with self._reaper.expecting():
                self._call([*command, *options, container], theirs, entered=container)
                child = self._reaper.adopt(int(pid_file.read_text()))
            pidfd = _open_pidfd(child.pid)
            if console is not None:
                stdio.set_terminal(console.receive(self._timeout))
                if all(plan.console_size):
                    stdio.resize(*plan.console_size)
            return Launched(child, pidfd, stdio)
        except BaseException:
            stdio.close()
            if pidfd is None:
                pidfd = self._left_behind(container, pid_file)
            if pidfd is not None:
                _kill(pidfd)
            raise
        finally:
            for descriptor in theirs:
                with suppress(OSError):
                    os.close(descriptor)
            if console is not None:
                console.close()
            pid_file.unlink(missing_ok=True)

    def _call(
        self,
        arguments: Sequence[str],
        stdio: tuple[int, int, int] | None = None,
        *,
        entered: ContainerId | None = None,
    ) -> None:
        """``entered``: the container that a process is on its way into meanwhile."""
        log = self._temporary("log")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        command = [
            paths.CRUN, "--root", paths.RUNTIME_ROOT, "--cgroup-manager", "cgroupfs",
            "--log", f"file:{log}", "--log-format", "json", *arguments,
        ]  # fmt: skip
        try:
            child = self._reaper.spawn(command, stdio or (null, null, null))
            status = self._finish(child, entered) if entered else _finish(child, self._timeout)
            if _KILLED < status <= _KILLED + signal.NSIG:
                # Not a no: what crun had done by then is not known.
                raise Unavailable(f"crun {arguments[0]} was killed ({status - _KILLED})")
            if status != 0:
                raise RuntimeFailed(f"crun {arguments[0]} failed: {_message(log) or f'status {status}'}")
        finally:
            os.close(null)
            log.unlink(missing_ok=True)

    def _finish(self, child: Child, entered: ContainerId) -> int:
        """As the function of that name. What the container stops on its way, and with it crun, is killed at once."""
        cgroup = self._cgroup(entered)
        timeout = self._timeout * (AFTER_A_HANG if entered in self._hung else 1)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            status = child.wait(min(left, LOOK_EVERY))
            if status is not None:
                self._hung.discard(entered)
                return status
            if entering.kill(cgroup, entering.program(child.pid), stopped=True):
                _end(child)
                raise RuntimeFailed("a process was stopped by others on its way into the container, and was killed")
        self._hung.add(entered)
        program = entering.program(child.pid)
        _end(child)
        entering.kill(cgroup, program, stopped=False)  # it would go on although nobody waits for it any more
        raise _hangs(timeout)

    def _left_behind(self, container: ContainerId, pid_file: Path) -> int | None:
        """The process that a crun who did not come to his end had started already, if it is one of the container's."""
        try:
            pid = int(pid_file.read_text())
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        with suppress(NotFound):
            if pid in self._cgroup(container).pids():
                return pidfd
        os.close(pidfd)
        return None

    def _discard(self, container: ContainerId) -> None:
        with suppress(RuntimeFailed):  # usually there is nothing to delete; but a crun that is killed has not said so
            self._call(["delete", "--force", container])

    def _temporary(self, suffix: str) -> Path:
        return self._private / f"{next(self._numbers)}.{suffix}"


def run(reaper: Reaper) -> Any:
    """A function that runs a program to its end, as `parma_guest.scratch.Run`."""

    def run_program(arguments: Sequence[str], timeout: float) -> None:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        output = os.memfd_create("output")
        try:
            status = _finish(reaper.spawn(arguments, (null, output, output)), timeout)
            if status != 0:
                words = _printable(os.pread(output, _MAX_MESSAGE, 0).decode(errors="replace").strip())
                raise Unavailable(f"{Path(arguments[0]).name} failed with status {status}: {words}")
        finally:
            os.close(null)
            os.close(output)

    return run_program


def _finish(child: Child, timeout: float) -> int:
    status = child.wait(timeout)
    if status is None:
        _end(child)
        raise _hangs(timeout)
    return status


def _hangs(timeout: float) -> DeadlineExceeded:
    return DeadlineExceeded("a program in the guest hangs and was killed", expected=f"an end within {timeout:g} s")


def _end(child: Child) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(_END_TIMEOUT)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # It has exited already; its status is known or about to be. EINVAL: and its number still names a session
        # or a process group.
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise


def _kill(pidfd: int) -> None:
    """The process that was just launched is not wanted after all."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _message(log: Path) -> str:
    """The last complaint in crun's log, in one printable line of bounded length."""
    try:
        with log.open("rb") as file:
            lines = file.read(_MAX_LOG).splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            return _printable(str(json.loads(line)["msg"]))
    return ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:_MAX_MESSAGE]


def _remove_bundle(bundle: Path) -> None:
    with suppress(FileNotFoundError):
        (bundle / "config.json").unlink()
    bundle.rmdir()


class _ConsoleSocket:
    """Where crun sends the master of a new terminal to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        self._socket.listen(1)

    def receive(self, timeout: float) -> int:
        """The master's descriptor. crun has connected and sent it by the time it exits."""
        self._socket.settimeout(timeout)
        try:
            connection, _ = self._socket.accept()
            with connection:
                connection.settimeout(timeout)
                _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise Unavailable("crun sent no terminal") from error
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[:4])
        if len(descriptors) != 1:
            raise Unavailable("crun sent no terminal")
        return descriptors[0]

    def close(self) -> None:
        """Removes the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
