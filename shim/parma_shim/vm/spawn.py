# SPDX-License-Identifier: Apache-2.0
"""Child processes without ``subprocess``, whose imports would cost memory for as long as a container lives.

Children are started with ``posix_spawn`` (safe with threads), each in a session of its own. Descriptors that Python
opened are close-on-exec, so a child inherits only those named.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from parma_wire.errors import DeadlineExceeded, Unavailable

T = TypeVar("T")

_READ_SIZE: Final = 64 * 1024
_RESET_SIGNALS: Final = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Spawner(Protocol):
    """:func:`spawn`, or the same on another thread."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        keep: Sequence[int] = (),
    ) -> Child: ...


class Executor(Protocol):
    """Runs a function on a thread that lives as long as the process, and returns what it returns."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


class Child(NamedTuple):
    """A started process. ``pidfd`` belongs to whoever called :func:`spawn`."""

    pid: int
    pidfd: int


class Finished(NamedTuple):
    """How a process run by :func:`run` ended."""

    status: int  # exit code, or minus the signal
    stdout: bytes
    stderr: bytes


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    keep: Sequence[int] = (),
) -> Child:
    """Start ``argv[0]`` (an absolute path). ``None`` is /dev/null; ``keep`` are inherited under their own numbers.

    Raises Unavailable when the program cannot be executed.
    """
    if not os.path.isabs(argv[0]):  # noqa: PTH117
        raise Unavailable(f"cannot execute {argv[0]!r}", expected="an absolute path")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions: list[tuple[int, int, int]] = []
        for number, source in enumerate((stdin, stdout, stderr)):
            actions.append((os.POSIX_SPAWN_DUP2, null if source is None else source, number))
        # dup2 of a descriptor on itself clears close-on-exec in the child only.
        actions.extend((os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep)
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_RESET_SIGNALS,
        )
    except OSError as error:
        raise Unavailable(f"cannot execute {argv[0]}: {error.strerror}") from error
    finally:
        os.close(null)
    try:
        return Child(pid, os.pidfd_open(pid))
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise Unavailable(f"cannot watch process {pid}: {error.strerror}") from error


def spawner_on(executor: Executor) -> Spawner:
    """:func:`spawn` on the executor's thread, and nothing else there: what waits must not keep that thread."""

    def start(argv: Sequence[str], **options: Any) -> Child:
        return executor(lambda: spawn(argv, **options))

    return start


def reap(child: Child) -> int | None:
    """Collect an ended child: exit code, minus the signal, or None when somebody else has collected it."""
    try:
        result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def send_signal(child: Child, number: int) -> None:
    """Signal the child; nothing happens when it has ended already."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, number)


def wait_exit(child: Child, timeout: float) -> bool:
    """Whether the child has ended within ``timeout`` seconds. Does not collect it."""
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout * 1000))))


def _kill_session(child: Child) -> None:
    """Kill an uncollected child and what it started; until it is collected its number is not given to anybody else."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


class Running:
    """A process with pipes on its standard streams, for :func:`run` and for helpers that stay until told.

    For one thread, but for :meth:`abort`.
    """

    def __init__(self, argv: Sequence[str], *, environment: Mapping[str, str], keep: Sequence[int] = ()) -> None:
        own: list[int] = []
        theirs: list[int] = []
        try:
            for mine_reads in (False, True, True):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                own.append(reader if mine_reads else writer)
                theirs.append(writer if mine_reads else reader)
            self.child: Final = spawn(
                argv, environment=environment, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], keep=keep
            )
        except BaseException:
            for fd in own:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._stdin, self._stdout, self._stderr = own
        os.set_blocking(self._stdin, False)
        self._closed: set[int] = set()
        self._lock = threading.Lock()
        self._reaped = False
        self.status: int | None = None

    def communicate(
        self,
        data: bytes,
        *,
        deadline: float,
        maximum: int,
        until: Callable[[bytes, bytes], bool] | None = None,
    ) -> tuple[bytes, bytes]:
        """Write ``data`` to stdin, close it, and read both outputs to their ends. At most ``maximum`` bytes each.

        With ``until`` reading stops as soon as it says so about the two outputs so far; stdin is then left open.

        Raises DeadlineExceeded, or Unavailable for too much output; the process is killed in both cases.
        """
        outputs = {self._stdout: bytearray(), self._stderr: bytearray()}
        waiting = set(outputs)
        view = memoryview(data)
        poll = select.poll()
        for fd in outputs:
            poll.register(fd, select.POLLIN)
        if view:
            poll.register(self._stdin, select.POLLOUT)
        elif until is None:
            self._close(self._stdin)
        while waiting:
            remaining = deadline - time.monotonic()
            ready = poll.poll(int(remaining * 1000) + 1) if remaining > 0 else []
            if not ready:
                self.kill()
                raise DeadlineExceeded("a helper process did not finish in time")
            for fd, _ in ready:
                if fd == self._stdin:
                    view = self._feed(view)
                    if not view:
                        poll.unregister(fd)
                        if until is None:
                            self._close(fd)
                    continue
                piece = os.read(fd, _READ_SIZE)
                outputs[fd] += piece
                if not piece:
                    poll.unregister(fd)
                    waiting.discard(fd)
                elif until is not None and until(bytes(outputs[self._stdout]), bytes(outputs[self._stderr])):
                    return bytes(outputs[self._stdout]), bytes(outputs[self._stderr])
                if len(outputs[fd]) > maximum:
                    self.kill()
                    raise Unavailable("a helper process wrote too much", expected=f"at most {maximum} bytes")
        return bytes(outputs[self._stdout]), bytes(outputs[self._stderr])

    def _feed(self, view: memoryview) -> memoryview:
        try:
            return view[os.write(self._stdin, view[:_READ_SIZE]) :]
        except BlockingIOError:
            return view
        except BrokenPipeError:
            return view[:0]  # it does not want its input; its exit status says why

    def finish(self, *, deadline: float) -> int:
        """Wait for the end; kill at the deadline. Returns the exit code, or minus the signal."""
        if not wait_exit(self.child, deadline - time.monotonic()):
            self.abort()
        self._collect()
        return self.status if self.status is not None else -1

    def kill(self) -> None:
        """End it now and release everything. Idempotent."""
        self.abort()
        self._collect()

    def abort(self) -> None:
        """Kill it and leave the rest to the thread that uses it. From any thread."""
        with self._lock:
            if not self._reaped:
                _kill_session(self.child)

    def _collect(self) -> None:
        with self._lock:
            if self._reaped:
                return
            self._reaped = True
            self.status = reap(self.child)
        for fd in (self._stdin, self._stdout, self._stderr, self.child.pidfd):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd not in self._closed:
            self._closed.add(fd)
            os.close(fd)


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    data: bytes = b"",
    deadline: float,
    maximum: int = 4 * 1024 * 1024,
) -> Finished:
    """Run a program to its end. ``deadline`` is of ``time.monotonic``. Raises DeadlineExceeded or Unavailable."""
    process = Running(argv, environment=environment)
    try:
        stdout, stderr = process.communicate(data, deadline=deadline, maximum=maximum)
        status = process.finish(deadline=deadline)
    finally:
        process.kill()
    return Finished(status, stdout, stderr)


class SpawnThread:
    """An :class:`Executor`: one thread that never ends.

    The kernel sends the parent-death signal when the *thread* that started the child ends, so QEMU must be started from
    a thread that lives as long as the shim.
    """

    def __init__(self) -> None:
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._waiting = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], T], /) -> T:
        """Run ``function`` there; its result or exception comes back here."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="spawn", daemon=True)
                self._thread.start()
        results: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def call() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                errors.append(error)
            finally:
                done.set()

        self._jobs.append(call)
        self._waiting.release()
        done.wait()
        if errors:
            raise errors[0]
        return results[0]

    def _serve(self) -> None:
        while True:
            self._waiting.acquire()
            self._jobs.popleft()()


on_spawn_thread: Final[Executor] = SpawnThread()
"""The process-wide executor for children that must die with the shim."""
