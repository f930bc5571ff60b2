# SPDX-License-Identifier: Apache-2.0
"""All of one process's stdio: opened before the process is made, connected once the guest has it, closed at its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from parma_shim.observe.registry import Registry
from parma_shim.stdio.inputs import Input
from parma_shim.stdio.logger import Logger
from parma_shim.stdio.outputs import Output, open_output
from parma_shim.stdio.pumps import Count, pump_input, pump_output
from parma_shim.stdio.targets import Kind, Target, parse
from parma_shim.stdio.waiting import Stopper
from parma_shim.task.ports import Stream, StreamConnection
from parma_wire import guest_pb2
from parma_wire.errors import NotFound, Unsupported
from ttrpc import TtrpcError

STREAMS: Final = "parma.guest.v1.Streams"

_LABELS: Final = {
    kind: (("stream", name),)
    for kind, name in ((guest_pb2.STDIN, "stdin"), (guest_pb2.STDOUT, "stdout"), (guest_pb2.STDERR, "stderr"))
}


class Paths(NamedTuple):
    """Where the client wants stdin, stdout and stderr, as it wrote it; ``State`` repeats it."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class ProcessIO:
    """Opened by construction. Every method may be called from any thread and more than once, except :meth:`connect`."""

    def __init__(self, paths: Paths, *, container_id: str, namespace: str, registry: Registry | None = None) -> None:
        """Opens the host's side. ``registry`` counts streams and bytes.

        Raises:
            Malformed, NotFound, Unavailable, DeadlineExceeded, Unsupported: one of the three cannot be used; nothing
                is open then.
            OSError: no descriptors are left; nothing is open then.
        """
        self._registry = registry or Registry()
        self._terminal = paths.terminal
        self._input_path = ""
        self._input: Input | None = None
        self._input_finished = False
        self._outputs: dict[int, Output] = {}
        self._logger: Logger | None = None
        self._connection: StreamConnection | None = None
        self._names = ("", "")
        self._threads: list[threading.Thread] = []
        self._input_stopper = Stopper()
        try:
            self._output_stopper = Stopper()
        except OSError:
            self._input_stopper.close()
            raise
        self._lock = threading.Lock()
        self._running_outputs = 0
        self._drained = threading.Condition(self._lock)
        self._closed = False
        try:
            self._open(paths, container_id, namespace)
        except BaseException:
            self.close()
            raise

    def connect(self, connection: StreamConnection, container_id: str, exec_id: str) -> None:
        """Opens the output streams of a process that the guest has by now, and takes ``connection`` over.

        Args:
            container_id, exec_id: as the guest calls them.
        """
        self._connection = connection
        self._names = (container_id, exec_id)
        kinds = [guest_pb2.STDOUT] if self._terminal else [guest_pb2.STDOUT, guest_pb2.STDERR]
        self._running_outputs = len(kinds)
        for kind in kinds:
            # Output that nobody wants is fetched all the same: the process would stop when its pipe is full.
            output = self._outputs.setdefault(kind, Output(-1))
            self._start(partial(self._run_output, self._opening(kind), output))

    def start_input(self) -> None:
        """Opens the fifo and the input stream, once, at the start of the process.

        Not before: the client's end opens when ours does, and ``ctr`` must not see the end of its input before its
        Create has returned, as it would then forget to say CloseIO.

        Raises:
            NotFound, Unavailable: it cannot be opened.
        """
        if not self._input_path:
            return
        source = Input(self._input_path)
        with self._lock:
            self._input = source
            if self._input_finished:
                source.finish()
        self._start(partial(self._run_input, source))

    def finish_input(self) -> None:
        """CloseIO: the process gets what has been written so far, then the end."""
        with self._lock:
            self._input_finished = True
            if self._input is not None:
                self._input.finish()

    def stop_input(self) -> None:
        """The process has ended: nobody reads its input any more."""
        self._input_stopper.stop()

    def drain(self, timeout: float) -> bool:
        """Waits until all output has been passed on; ``False`` when that took too long."""
        with self._drained:
            return self._drained.wait_for(lambda: self._running_outputs == 0, timeout)

    def close(self) -> None:
        """Ends everything; output that is not passed on by now is lost."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._input_stopper.stop()
        self._output_stopper.stop()
        if self._connection is not None:
            self._connection.close()
            self._join_pumps()
        else:
            self._close_unconnected()
        if self._logger is not None:
            self._logger.close()

    def _open(self, paths: Paths, container_id: str, namespace: str) -> None:
        if paths.stdin:
            source = parse(paths.stdin)
            if source.kind is not Kind.PATH:
                raise Unsupported("stdin can only be a fifo or a file", expected="a path")
            if not Path(source.path).exists():
                raise NotFound(f"{source.path} for the input does not exist")
            self._input_path = source.path
        stdout = parse(paths.stdout)
        stderr = Target(Kind.NONE) if paths.terminal else parse(paths.stderr)
        logger = next((target for target in (stdout, stderr) if target.kind is Kind.LOGGER), None)
        if logger is not None:
            self._logger = Logger(logger, container_id=container_id, namespace=namespace)
        for kind, target in ((guest_pb2.STDOUT, stdout), (guest_pb2.STDERR, stderr)):
            if target.kind is Kind.LOGGER and self._logger is not None:
                self._outputs[kind] = Output(self._logger.take("stdout" if kind == guest_pb2.STDOUT else "stderr"))
            else:
                self._outputs[kind] = open_output(target)

    def _run_input(self, source: Input) -> None:
        try:
            # Without a connection there is no stream, and the machine's end is reported elsewhere.
            with contextlib.suppress(TtrpcError), self._counted(guest_pb2.STDIN) as count:
                pump_input(self._stream(), self._opening(guest_pb2.STDIN), source, self._input_stopper, count)
        finally:
            source.close()

    def _run_output(self, opening: guest_pb2.StreamOpen, output: Output) -> None:
        try:
            with contextlib.suppress(TtrpcError), self._counted(opening.kind) as count:
                pump_output(self._stream(), opening, output, self._output_stopper, count)
        finally:
            output.close()
            with self._drained:
                self._running_outputs -= 1
                self._drained.notify_all()

    @contextlib.contextmanager
    def _counted(self, kind: guest_pb2.StreamKind) -> Iterator[Count]:
        """A stream that is open; yields what its bytes are told to."""
        labels = _LABELS[kind]
        self._registry.add("parma_shim_streams_opened_total", labels)
        try:
            yield lambda size: self._registry.add("parma_shim_stream_bytes_total", labels, size)
        finally:
            self._registry.add("parma_shim_streams_closed_total", labels)

    def _opening(self, kind: guest_pb2.StreamKind) -> guest_pb2.StreamOpen:
        container_id, exec_id = self._names
        return guest_pb2.StreamOpen(container_id=container_id, exec_id=exec_id, kind=kind)

    def _stream(self) -> Stream:
        assert self._connection is not None  # noqa: S101 - connect() has set it
        return self._connection.stream(STREAMS, "Stream", guest_pb2.StreamFrame)

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name="stdio", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _join_pumps(self) -> None:
        deadline = time.monotonic() + 1  # they have been stopped: this is scheduling, not waiting
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._input_stopper.close()
            self._output_stopper.close()

    def _close_unconnected(self) -> None:
        for output in self._outputs.values():
            output.close()
        self._input_stopper.close()
        self._output_stopper.close()
