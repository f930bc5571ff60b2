# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002
"""A group and a guest without a virtual machine: processes are small scripts, streams run over a real ttrpc pair.

What a fake process does is said by its arguments::

    exit N          ends at once with N
    echo TEXT       writes TEXT, ends with 0
    flood N         writes N bytes, ends with 0
    drip N          writes N bytes, each in a frame of its own, ends with 0
    cat             copies stdin to stdout until the end, ends with 0
    sleep           ends by a signal only
    missing         cannot be started: the guest says NotFound
    denied          cannot be started: the policy says no
"""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ttrpc
from parma_shim.task.hooks import Hook
from parma_shim.task.ports import ContainerSpec
from parma_wire import guest_pb2
from parma_wire.errors import DeadlineExceeded, Denied, FailedPrecondition, NotFound, ParmaError, Unavailable
from parma_wire.guest_pb2 import StreamFrame
from parma_wire.limits import MAX_STREAM_DATA, STREAM_WINDOW

PATIENCE = 60.0


class Entry(NamedTuple):
    """An entry of the process list."""

    pid: int
    exec_id: str
    init: bool


class FakeProcess:
    """One process in the fake guest."""

    def __init__(self, pid: int, args: list[str]) -> None:
        self.pid = pid
        self.args = args
        self.stdin: queue.Queue[bytes] = queue.Queue()
        self.stdout: queue.Queue[bytes] = queue.Queue()
        self.stderr: queue.Queue[bytes] = queue.Queue()
        self.frame_size = MAX_STREAM_DATA
        self.exited = threading.Event()
        self.status = 0
        self.oom_killed = False
        self.size: tuple[int, int] | None = None
        self.holds_output_open = False

    def run(self) -> None:
        """Starts doing what the arguments say."""
        threading.Thread(target=self._run, daemon=True).start()

    def exit(self, status: int) -> None:
        """Ends, once; its output ends with it."""
        if self.exited.is_set():
            return
        self.status = status
        if not self.holds_output_open:
            self.end_output()
        self.exited.set()

    def end_output(self) -> None:
        """The end of both output streams."""
        self.stdout.put(b"")
        self.stderr.put(b"")

    def _run(self) -> None:
        verb, *rest = self.args
        if verb == "exit":
            self.exit(int(rest[0]))
        elif verb == "echo":
            self.stdout.put(rest[0].encode())
            self.exit(0)
        elif verb in ("flood", "drip"):
            if verb == "drip":
                self.frame_size = 1
            self.stdout.put(b"x" * int(rest[0]))
            self.exit(0)
        elif verb == "cat":
            while data := self.stdin.get():
                self.stdout.put(data)
            self.exit(0)


class FakeGuest:
    """Implements ``parma_shim.task.ports.Guest``. ``hang`` makes every call but Wait run into its deadline."""

    def __init__(self) -> None:
        self.processes: dict[tuple[str, str], FakeProcess] = {}
        self.used: set[tuple[str, str]] = set()
        """Containers and execs, those that were deleted included."""
        self.hang = False
        self.refuse_signals: ParmaError | None = None
        self.busy = False
        """Signals are sent after whoever asked has been told that it took too long, when asked whether it lives."""
        self._late: list[Callable[[], None]] = []
        self.late_execs = False
        """Execs begin after whoever asked for them has been told that it took too long."""
        self.alive = True
        self.calls: list[str] = []
        self.resources: guest_pb2.Resources | None = None
        self.pod = ""
        self._pids = itertools.count(2)
        self._dead = threading.Event()

    def create(self, spec: ContainerSpec) -> None:
        args = list(spec.oci.get("process", {"args": ["sleep"]})["args"])  # a sandbox has no process of its own
        _refuse(args)
        if (spec.oci.get("annotations") or {}).get("io.kubernetes.cri.container-type") == "sandbox":
            self.pod = spec.guest_id
        self.processes[spec.guest_id, ""] = FakeProcess(next(self._pids), args)

    def die(self) -> None:
        """The machine is gone: calls fail, waiters too."""
        self.alive = False
        self._dead.set()
        for process in self.processes.values():
            process.end_output()

    def process(self, container_id: str, exec_id: str = "") -> FakeProcess:
        try:
            return self.processes[container_id, exec_id]
        except KeyError:
            raise NotFound("no such process") from None

    def answers(self, within: float) -> bool:
        self.calls.append("answers")
        if self.hang or not self.alive:
            return False
        while self._late:
            self._late.pop()()
        return True

    def evidence(self, nonce: bytes, *, deadline: float | None = None) -> bytes:
        return nonce

    def start_container(self, container_id: str, *, deadline: float | None = None) -> None:
        self._enter("start", deadline)
        self.process(container_id).run()

    def stop_sandbox(self, *, deadline: float | None = None) -> None:
        self._enter("stop", deadline)
        self.process(self.pod).exit(137)

    def exec_process(
        self, container_id: str, exec_id: str, process: guest_pb2.Process, *, deadline: float | None = None
    ) -> int:
        self._enter("exec", deadline)
        _refuse(list(process.args))
        if (container_id, exec_id) in self.used:
            raise AssertionError("the guest refuses an exec id that was used before")
        made = FakeProcess(next(self._pids), list(process.args))
        self.processes[container_id, exec_id] = made
        self.used.add((container_id, exec_id))
        made.run()
        if self.late_execs:
            raise DeadlineExceeded("the guest did not answer ExecProcess in time")
        return made.pid

    def signal_process(
        self,
        container_id: str,
        exec_id: str,
        signal: int,
        *,
        all_processes: bool = False,
        deadline: float | None = None,
    ) -> None:
        self._enter(f"signal {signal}{' all' if all_processes else ''}", deadline)
        if self.refuse_signals is not None:
            raise self.refuse_signals
        process = self.process(container_id, exec_id)
        if process.exited.is_set():
            raise NotFound("process already finished")
        if self.busy:
            self._late.append(lambda: self._end(container_id, exec_id, 128 + signal))
            raise DeadlineExceeded("the guest did not answer SignalProcess in time")
        self._end(container_id, exec_id, 128 + signal)

    def _end(self, container_id: str, exec_id: str, status: int) -> None:
        if not exec_id:
            for (container, other), each in self.processes.items():
                if container == container_id and other:
                    each.exit(137)
        self.process(container_id, exec_id).exit(status)

    def wait_process(self, container_id: str, exec_id: str) -> tuple[int, bool]:
        process = self.process(container_id, exec_id)
        while not process.exited.wait(0.01):
            if self._dead.is_set():
                raise Unavailable("the connection is closed")
        if self._dead.is_set():
            raise Unavailable("the connection is closed")
        return process.status, process.oom_killed

    def resize_pty(
        self, container_id: str, exec_id: str, width: int, height: int, *, deadline: float | None = None
    ) -> None:
        self._enter("resize", deadline)
        self.process(container_id, exec_id).size = (width, height)

    def delete_process(self, container_id: str, exec_id: str, *, deadline: float | None = None) -> None:
        self._enter("delete_process", deadline)
        self.processes.pop((container_id, exec_id), None)

    def list_processes(self, container_id: str, *, deadline: float | None = None) -> list[Entry]:
        self._enter("list", deadline)
        return [
            Entry(process.pid, exec_id, init=not exec_id)
            for (container, exec_id), process in self.processes.items()
            if container == container_id and not process.exited.is_set()
        ]

    def stats(self, container_id: str, *, deadline: float | None = None) -> guest_pb2.StatsResponse:
        self._enter("stats", deadline)
        return guest_pb2.StatsResponse(
            memory_usage=12345, pids_current=2, cpu_usage_us=77, memory_page_faults=88, memory_major_page_faults=9
        )

    def pause(self, container_id: str, *, deadline: float | None = None) -> None:
        self._enter("pause", deadline)

    def resume(self, container_id: str, *, deadline: float | None = None) -> None:
        self._enter("resume", deadline)

    def update_resources(
        self, container_id: str, resources: guest_pb2.Resources, *, deadline: float | None = None
    ) -> None:
        self._enter("update", deadline)
        self.resources = resources

    def _enter(self, call: str, deadline: float | None) -> None:
        self.calls.append(call)
        if not self.alive:
            raise Unavailable("the connection is closed")
        if self.hang:
            assert deadline is not None, f"{call} has no deadline"
            self._dead.wait(max(0.0, deadline - time.monotonic()))
            raise DeadlineExceeded(f"the guest did not answer {call} in time")


class FakeGroup:
    """Implements ``parma_shim.task.ports.Group``."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        self.guest = FakeGuest()
        self.vm_pid = 4242
        self.created: list[ContainerSpec] = []
        self.deleted: list[str] = []
        self.killed = False
        self.shut_down = False
        self.refreshed = 0
        self.hooks: list[tuple[str, str, int, str]] = []
        """Path, status, process id, network namespace: in the order in which they ran."""
        self.failing_hooks: set[str] = set()
        self.status: dict[str, Any] = {}
        self.status_document = ""
        self.on_create: Callable[[ContainerSpec], None] = lambda _spec: None
        self.on_created: Callable[[ContainerSpec], None] = lambda _spec: None
        self.on_delete: Callable[[str], None] = lambda _container_id: None
        self.on_attest: Callable[[], None] = lambda: None
        self._callbacks: list[Callable[[int | None], None]] = []
        self._streams = ttrpc.Server()
        self._streams.register(guest_pb2.DESCRIPTOR.services_by_name["Streams"], FakeStreams(self.guest))

    def create_container(
        self, spec: ContainerSpec, *, deadline: float | None, on_running: Callable[[], None] = lambda: None
    ) -> None:
        self.on_create(spec)
        on_running()
        self.on_created(spec)
        self.guest.create(spec)
        self.created.append(spec)

    def delete_container(self, container_id: str) -> None:
        self.on_delete(container_id)
        self.deleted.append(container_id)

    def open_stream_connection(self) -> ttrpc.Client:
        if not self.guest.alive:
            raise Unavailable("there is no machine")
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._streams.serve_connection, args=(theirs,), daemon=True).start()
        return ttrpc.Client(ours)

    def on_vm_exit(self, callback: Callable[[int | None], None]) -> None:
        self._callbacks.append(callback)

    def refresh_status(self) -> None:
        self.refreshed += 1

    def require_attested(self, *, deadline: float | None) -> None:
        self.on_attest()

    def run_hooks(
        self, hooks: Sequence[Hook], state: Mapping[str, Any], network_namespace: str, *, deadline: float
    ) -> None:
        assert deadline > time.monotonic()
        for hook in hooks:
            self.hooks.append((hook.path, state["status"], state.get("pid", 0), network_namespace))
            if hook.path in self.failing_hooks:
                raise FailedPrecondition(f"the hook {hook.path} failed (1)")

    def kill(self) -> None:
        self.killed = True
        self.machine_dies()

    def shutdown(self) -> None:
        self.machine_dies()
        self.shut_down = True

    def machine_dies(self) -> None:
        """QEMU is gone."""
        if self.guest.alive:
            self.guest.die()
            self.vm_pid = 0
            for callback in self._callbacks:
                callback(None)


class FakeStreams:
    """The guest's end of the streams, with the same windows."""

    def __init__(self, guest: FakeGuest) -> None:
        self._guest = guest

    def Stream(self, stream: ttrpc.ServerStream, _context: ttrpc.Context) -> None:  # noqa: N802
        opening = stream.recv().open
        process = self._guest.process(opening.container_id, opening.exec_id)
        if opening.kind == guest_pb2.STDIN:
            self._take_input(stream, process)
        else:
            self._send_output(stream, process, process.stdout if opening.kind == guest_pb2.STDOUT else process.stderr)

    def _take_input(self, stream: ttrpc.ServerStream, process: FakeProcess) -> None:
        while (frame := stream.recv()) is not None:
            assert len(frame.data) <= MAX_STREAM_DATA
            if frame.eof:
                process.stdin.put(b"")
                return
            process.stdin.put(frame.data)
            stream.send(StreamFrame(window_update=len(frame.data)))

    def _send_output(self, stream: ttrpc.ServerStream, process: FakeProcess, source: queue.Queue[bytes]) -> None:
        credit = STREAM_WINDOW
        for piece in _pieces(source, lambda: process.frame_size):
            while credit < len(piece):
                update: Any = stream.recv()
                if update is None:
                    return
                credit += update.window_update
                assert credit <= STREAM_WINDOW, "more bytes acknowledged than were sent"
            stream.send(StreamFrame(data=piece))
            credit -= len(piece)
        stream.send(StreamFrame(eof=True))


def _pieces(source: queue.Queue[bytes], size: Callable[[], int]) -> Iterator[bytes]:
    while data := source.get():
        for start in range(0, len(data), size()):
            yield data[start : start + size()]


def _refuse(args: list[str]) -> None:
    if args[0] == "missing":
        raise NotFound("exec: missing: executable file not found")
    if args[0] == "denied":
        raise Denied("invalid command")
