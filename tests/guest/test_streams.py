# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  (what must raise is the end of a context, or the last of several steps)
"""Windows, ends and stalls of a process's stdio, over real pipes and pseudo-terminals."""

from __future__ import annotations

import os
import pty
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from parma_guest import streams
from parma_guest.processes import Process
from parma_guest.reaper import Child
from parma_guest.stdio import STDIN, STDOUT, Stdio
from parma_guest.values import ContainerId, ExecId
from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, FailedPrecondition, Malformed, NotFound
from parma_wire.limits import MAX_STREAM_DATA, STREAM_WINDOW
from tests.descriptors import descriptors
from tests.guest.fakes import CONTAINER, FakeStream, never


class Fixture:
    """A process with pipes, whose other ends the test holds."""

    def __init__(self, stdio: Stdio, theirs: tuple[int, int, int]) -> None:
        self.child = Child(77)
        self.process = Process(CONTAINER, ExecId(""), ("/bin/app",), self.child, None, stdio)
        self.stdin, self.stdout, self.stderr = theirs
        self._open = set(theirs)

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors or tuple(self._open):
            if descriptor in self._open:
                self._open.remove(descriptor)
                os.close(descriptor)

    def find(self, container: ContainerId, exec_id: ExecId) -> Process:
        if container != CONTAINER or exec_id:
            raise NotFound("no such process")
        return self.process


@pytest.fixture
def pipes() -> Iterator[Fixture]:
    fixture = Fixture(*Stdio.pipes(stdin=True))
    yield fixture
    fixture.process.close()
    fixture.close()


@contextmanager
def serving(
    fixture: Fixture, kind: int, *, on_cancel: Callable[[Callable[[], None]], None] = never, **options: Any
) -> Iterator[FakeStream]:
    """A served stream; leaves when the server's side has ended."""
    stream = FakeStream()
    stream.give(open=pb.StreamOpen(container_id=str(CONTAINER), kind=pb.StreamKind.Name(kind)))
    failure: list[BaseException] = []

    def run() -> None:
        try:
            streams.serve(stream, fixture.find, on_cancel, **options)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield stream
    stream.incoming.put(None)
    thread.join(60)
    assert not thread.is_alive()
    if failure:
        raise failure[0]


def collect(stream: FakeStream) -> bytes:
    """Everything up to ``eof``, acknowledged frame by frame."""
    data = bytearray()
    while not (frame := stream.take()).eof:
        assert 0 < len(frame.data) <= MAX_STREAM_DATA
        data += frame.data
        stream.give(window_update=len(frame.data))
    return bytes(data)


def test_output_arrives_whole_and_in_order(pipes: Fixture) -> None:
    sent = os.urandom(500_000)

    def write() -> None:
        view = memoryview(sent)
        while view:
            view = view[os.write(pipes.stdout, view[:50_000]) :]
        pipes.close(pipes.stdout)

    writer = threading.Thread(target=write)
    with serving(pipes, STDOUT) as stream:
        writer.start()
        assert collect(stream) == sent
    writer.join(60)


def test_no_more_than_the_window_is_outstanding(pipes: Fixture) -> None:
    os.set_blocking(pipes.stdout, False)
    written = 0
    with serving(pipes, STDOUT) as stream:
        received = 0
        while received < STREAM_WINDOW:
            with pytest.raises(BlockingIOError):
                while True:
                    written += os.write(pipes.stdout, bytes(4096))
            received += len(stream.take().data)
        with pytest.raises(queue.Empty):
            stream.outgoing.get(timeout=0.1)
        assert received == STREAM_WINDOW
        stream.give(window_update=100)
        assert len(stream.take().data) == 100
        pipes.close(pipes.stdout)
        stream.give(window_update=STREAM_WINDOW)
        assert received + 100 + len(collect(stream)) == written


def test_acknowledging_what_was_not_sent_is_refused(pipes: Fixture) -> None:
    with pytest.raises(Malformed, match="acknowledged"), serving(pipes, STDOUT) as stream:
        stream.give(window_update=1)


@pytest.mark.parametrize("kind", [STDIN, STDOUT])
def test_frames_of_the_other_side_are_refused(pipes: Fixture, kind: int) -> None:
    with pytest.raises(Malformed, match="unexpected"), serving(pipes, kind) as stream:
        if kind == STDIN:
            stream.give(window_update=1)
        else:
            stream.give(data=b"x")


def test_a_stream_must_begin_with_open_and_name_something() -> None:
    for frame in (pb.StreamFrame(eof=True), pb.StreamFrame(), pb.StreamFrame(data=b"x")):
        stream = FakeStream()
        stream.incoming.put(frame)
        with pytest.raises(Malformed):
            streams.serve(stream, lambda *_: pytest.fail("asked"), never)


def test_unknown_processes_and_kinds_are_refused(pipes: Fixture) -> None:
    for opening, error in (
        (pb.StreamOpen(container_id="d1" * 32, kind=pb.STDOUT), NotFound),
        (pb.StreamOpen(container_id="x", kind=pb.STDOUT), Malformed),
        (pb.StreamOpen(container_id=str(CONTAINER)), Malformed),
    ):
        stream = FakeStream()
        stream.give(open=opening)
        with pytest.raises(error):
            streams.serve(stream, pipes.find, never)


def test_a_kind_has_one_stream_at_a_time_and_a_lost_one_can_be_opened_again(pipes: Fixture) -> None:
    with serving(pipes, STDOUT) as first:
        os.write(pipes.stdout, b"one")
        assert first.take().data == b"one"
        with pytest.raises(AlreadyExists), serving(pipes, STDOUT):
            pass
    os.write(pipes.stdout, b"two")
    pipes.close(pipes.stdout)
    with serving(pipes, STDOUT) as second:
        assert collect(second) == b"two"
    with serving(pipes, STDOUT) as third:
        assert collect(third) == b""


def test_input_is_written_acknowledged_and_closed(pipes: Fixture) -> None:
    with serving(pipes, STDIN) as stream:
        stream.give(data=b"hello")
        assert stream.take().window_update == 5
        stream.give(eof=True)
    assert os.read(pipes.stdin, 100) == b"hello"
    assert os.read(pipes.stdin, 100) == b""


def test_a_process_that_does_not_read_stops_only_its_own_input(pipes: Fixture) -> None:
    sent = b"x" * MAX_STREAM_DATA
    with serving(pipes, STDIN) as stream:
        for _ in range(4):
            stream.give(data=sent)
            assert stream.take().window_update == len(sent)
        stream.give(data=sent)
        with pytest.raises(queue.Empty):  # the pipe is full: no acknowledgement
            stream.outgoing.get(timeout=0.1)
        os.read(pipes.stdin, 1 << 20)
        assert stream.take().window_update == len(sent)


def test_input_for_a_process_that_has_gone_ends_the_stream(pipes: Fixture) -> None:
    with serving(pipes, STDIN) as stream:
        pipes.close(pipes.stdin)
        stream.give(data=b"x")


def test_a_blocked_write_ends_when_the_process_exits(pipes: Fixture) -> None:
    with serving(pipes, STDIN) as stream:
        for _ in range(5):
            stream.give(data=b"x" * MAX_STREAM_DATA)
        for _ in range(4):
            stream.take()
        pipes.child.finish(0)


def test_a_host_that_leaves_in_a_blocked_write_can_open_the_input_again(pipes: Fixture) -> None:
    leaving: list[Callable[[], None]] = []
    with serving(pipes, STDIN, on_cancel=leaving.append) as stream:
        for _ in range(5):
            stream.give(data=b"x" * MAX_STREAM_DATA)
        for _ in range(4):
            stream.take()
        leaving[0]()
    os.read(pipes.stdin, 1 << 20)
    with serving(pipes, STDIN) as stream:
        stream.give(data=b"back")
        assert stream.take().window_update == 4
        stream.give(eof=True)
    assert os.read(pipes.stdin, 100) == b"back"


def test_too_large_a_piece_of_input_is_refused(pipes: Fixture) -> None:
    with pytest.raises(Malformed, match="too large"), serving(pipes, STDIN) as stream:
        stream.give(data=bytes(MAX_STREAM_DATA + 1))


def test_what_is_in_the_pipe_when_the_process_exits_is_not_lost(pipes: Fixture) -> None:
    os.write(pipes.stdout, b"last words")
    pipes.close(pipes.stdout)
    pipes.child.finish(0)
    with serving(pipes, STDOUT) as stream:
        assert collect(stream) == b"last words"


def test_a_pipe_held_by_another_ends_some_time_after_the_exit(pipes: Fixture) -> None:
    with serving(pipes, STDOUT, linger=0.2) as stream:
        os.write(pipes.stdout, b"early ")
        assert stream.take().data == b"early "
        stream.give(window_update=6)
        pipes.child.finish(0)
        os.write(pipes.stdout, b"late")  # somebody else still has the pipe
        assert collect(stream) == b"late"


def test_no_access_is_an_immediate_end_and_input_is_swallowed() -> None:
    fixture = Fixture(*Stdio.nothing())
    with serving(fixture, STDOUT) as stream:
        assert collect(stream) == b""
    with serving(fixture, STDIN) as stream:
        stream.give(data=b"x")
        assert stream.take().window_update == 1
        stream.give(eof=True)
    assert os.read(fixture.stdin, 10) == b""  # /dev/null
    fixture.close()


def test_a_terminal_has_input_output_size_and_survives_the_end_of_input() -> None:
    master, slave = pty.openpty()
    stdio, theirs = Stdio.terminal()
    stdio.set_terminal(master)
    fixture = Fixture(stdio, theirs)
    stdio.resize(101, 37)
    assert os.get_terminal_size(slave) == (101, 37)
    with serving(fixture, STDIN) as stream:
        stream.give(data=b"hi\n")
        stream.take()
        stream.give(eof=True)
    assert os.read(slave, 10) == b"hi\n"
    with serving(fixture, STDOUT) as stream:
        os.write(slave, b"out")
        os.close(slave)
        assert collect(stream) == b"hi\r\nout"
    fixture.process.close()
    fixture.close()


def test_only_a_terminal_has_a_size(pipes: Fixture) -> None:
    with pytest.raises(FailedPrecondition):
        pipes.process.stdio.resize(1, 1)


def test_closing_a_process_leaves_no_descriptor_open(pipes: Fixture) -> None:
    before = descriptors()
    fixture = Fixture(*Stdio.pipes(stdin=True))
    with serving(fixture, STDOUT) as stream:
        fixture.close(fixture.stdout)
        collect(stream)
        fixture.process.close()
    fixture.close()
    assert descriptors() <= before


@pytest.mark.parametrize("kind", [STDIN, STDOUT])
def test_streams_that_ended_before_the_process_leave_nothing_behind(pipes: Fixture, kind: int) -> None:
    for _ in range(3):
        with serving(pipes, kind):
            pass
    assert pipes.child._callbacks == []


class Clock:
    """Time that passes by sleeping, and by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_output_that_comes_now_and_then_is_never_held_up() -> None:
    clock = Clock()
    pace = streams._Pace(clock, clock.sleep)
    for _ in range(5):
        assert not pace.wait(10)
        clock.now += 0.1
    assert clock.slept == []


def test_small_pieces_in_a_row_are_given_more_and_more_time_to_grow_up_to_a_bound() -> None:
    clock = Clock()
    pace = streams._Pace(clock, clock.sleep)
    for _ in range(8):
        pace.wait(10)
    assert clock.slept == [0.0005, 0.001, 0.002, 0.004, 0.008, 0.008, 0.008]
    assert not pace.wait(MAX_STREAM_DATA)
    assert clock.slept[-1] == 0.008
    assert len(clock.slept) == 7
