# SPDX-License-Identifier: Apache-2.0
"""stdio from a container's fifos and files to the guest's streams and back."""

from __future__ import annotations

import itertools
import os
import select
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_shim.api import task_pb2
from parma_shim.stdio import inputs
from parma_shim.stdio.inputs import Input
from parma_shim.stdio.outputs import open_output
from parma_shim.stdio.pumps import MAX_UNACKNOWLEDGED, pump_input, pump_output
from parma_shim.stdio.targets import Kind, Target
from parma_shim.stdio.waiting import Stopper
from parma_shim.task.process import guest_container_id
from parma_wire.errors import Malformed, NotFound, Unavailable
from parma_wire.guest_pb2 import StreamFrame, StreamOpen
from parma_wire.limits import STREAM_WINDOW
from tests.descriptors import descriptors
from tests.shim.support import Rig, eventually
from ttrpc import Status, TtrpcError

MANY = 500_000
"""Bytes: many times a window and a pipe."""


class Reader:
    """A client's end of an output fifo."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.data = b""

    def read_to_end(self) -> bytes:
        """Everything, once the shim has closed its end."""
        os.set_blocking(self.descriptor, True)
        while part := os.read(self.descriptor, 65536):
            self.data += part
        return self.data

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        os.set_blocking(self.descriptor, True)
        found = b""
        while len(found) < size:
            part = os.read(self.descriptor, size - len(found))
            assert part, "the end came too early"
            found += part
        return found

    def wait_full(self) -> None:
        """Until the pipe holds all that it can."""
        before = -1
        while (now := self.pending()) != before or now == 0:
            before = now
            select.select([], [], [], 0.05)

    def pending(self) -> int:
        import fcntl
        import struct
        import termios

        size: int = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.FIONREAD, b"\0" * 4))[0]
        return size


@pytest.fixture
def stdout(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "stdout")
    yield reader
    os.close(reader.descriptor)


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "stderr")
    yield reader
    os.close(reader.descriptor)


@pytest.fixture
def stdin(tmp_path: Path) -> str:
    os.mkfifo(tmp_path / "stdin")
    return str(tmp_path / "stdin")


def delete(rig: Rig, container_id: str) -> int:
    status: int = rig.call("Delete", task_pb2.DeleteRequest(id=container_id)).exit_status
    return status


def close_stdin(rig: Rig, container_id: str, exec_id: str = "") -> None:
    rig.call("CloseIO", task_pb2.CloseIORequest(id=container_id, exec_id=exec_id, stdin=True))


@pytest.mark.parametrize("scheme", ["", "fifo://"])
def test_output_arrives_and_ends(rig: Rig, stdout: Reader, stderr: Reader, scheme: str) -> None:
    rig.run("a", "echo", "hello", stdout=scheme + stdout.path, stderr=scheme + stderr.path)
    assert stdout.read_to_end() == b"hello"
    assert stderr.read_to_end() == b""
    assert rig.wait("a") == 0


@pytest.mark.parametrize("verb", ["flood", "drip"])
def test_nothing_is_lost_of_much_output(rig: Rig, stdout: Reader, verb: str) -> None:
    size = MANY if verb == "flood" else 5000
    rig.run("a", verb, str(size), stdout=stdout.path)
    assert len(stdout.read_to_end()) == size


@pytest.mark.usefixtures("complete_output")
def test_the_exit_is_known_when_the_output_is_complete(rig: Rig, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number in range(30):
        rig.run(f"c{number}", "echo", "x" * 100, stdout=f"file://{log}{number}")
        rig.wait(f"c{number}")
        assert Path(f"{log}{number}").read_text() == "x" * 100


def test_a_stalled_reader_stops_neither_exit_nor_the_other_stream(rig: Rig, stdout: Reader, stderr: Reader) -> None:
    rig.run("a", "sleep", stdout=stdout.path, stderr=stderr.path)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.stdout.put(b"o" * MANY)
    stdout.wait_full()
    process.stderr.put(b"e" * MANY)
    assert stderr.read(MANY) == b"e" * MANY
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9))
    assert rig.wait("a") == 137
    assert len(stdout.read_to_end()) == MANY


def test_a_slow_reader_of_single_bytes_loses_nothing(rig: Rig, stdout: Reader) -> None:
    """Frames of one byte: many more of them than a stream's inbox holds wait for the reader."""
    rig.run("a", "sleep", stdout=stdout.path)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.stdout.put(b"f" * 65536)
    stdout.wait_full()
    process.frame_size = 1
    process.stdout.put(b"d" * 3000)
    process.exit(0)
    rig.wait("a")
    assert stdout.read_to_end() == b"f" * 65536 + b"d" * 3000


def test_delete_is_bounded_when_nobody_reads(rig: Rig, stdout: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    from parma_shim.task import removal

    monkeypatch.setattr(removal, "DRAIN", 0.1)
    rig.run("a", "flood", str(MANY), stdout=stdout.path)
    rig.wait("a")
    begin = time.monotonic()
    delete(rig, "a")
    assert time.monotonic() - begin < 10


def test_memory_stays_within_the_window_when_nobody_reads(rig: Rig, stdout: Reader) -> None:
    rig.run("a", "sleep", stdout=stdout.path)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.stdout.put(b"x" * MANY)
    stdout.wait_full()
    total = stdout.pending()
    assert total <= 65536
    # What left the guest is what the fifo holds and at most a window: the fake asserts the latter.
    assert len(stdout.read(total)) == total
    assert STREAM_WINDOW < MANY


class ScriptedStream:
    """A stream whose guest is the test: it gives frames and sees what is sent."""

    def __init__(self, frames: Iterator[StreamFrame]) -> None:
        self.frames = frames
        self.taken = 0
        self.sent: list[StreamFrame] = []
        self.closed = False

    def send(self, message: Any, timeout: float | None = None) -> None:  # noqa: ARG002 - as a stream has it
        self.sent.append(message)

    def recv(self, timeout: float | None = None) -> StreamFrame | None:
        frame = next(self.frames, None)
        if frame is None and timeout == 0:
            raise TtrpcError(Status.DEADLINE_EXCEEDED, "nothing yet")
        self.taken += frame is not None
        return frame

    def close(self) -> None:
        self.closed = True


def test_a_guest_that_ignores_its_window_is_not_read_further(stdout: Reader) -> None:
    flood = ScriptedStream(itertools.repeat(StreamFrame(data=b"x" * 16_000), 1000))
    stopper = Stopper()
    output = open_output(Target(Kind.PATH, stdout.path))
    pump = threading.Thread(target=pump_output, args=(flood, StreamOpen(), output, stopper, lambda _size: None))
    pump.start()
    stdout.wait_full()
    assert flood.taken * 16_000 <= stdout.pending() + STREAM_WINDOW + 16_000
    stopper.stop()
    pump.join()
    stopper.close()
    assert flood.closed


def test_input_in_small_pieces_never_has_more_messages_under_way_than_the_guest_takes(stdin: str) -> None:
    def guest() -> Iterator[StreamFrame]:
        # Acknowledges only when asked to; each question comes with what is under way.
        for _ in range(2000):
            under_way = len(stream.sent) - 1 - stream.taken
            assert under_way <= MAX_UNACKNOWLEDGED
            most.append(under_way)
            if under_way == MAX_UNACKNOWLEDGED:
                yield StreamFrame(window_update=1)
            else:
                os.write(client, b"i")
                yield None  # type: ignore[misc]

    most: list[int] = []
    stream = ScriptedStream(guest())
    source = Input(stdin)
    client = os.open(stdin, os.O_WRONLY)
    stopper = Stopper()
    pump_input(stream, StreamOpen(), source, stopper, lambda _size: None)
    os.close(client)
    stopper.close()
    assert max(most) == MAX_UNACKNOWLEDGED


def test_a_connection_that_is_gone_lets_go_of_the_input(rig: Rig, stdin: str) -> None:
    rig.create("a", "cat", stdin=stdin)
    io = rig.env.tasks.find("a").io
    assert io is not None
    assert io._connection is not None
    io._connection.close()
    io.start_input()

    def nobody_reads() -> bool:
        try:
            os.close(os.open(stdin, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return True
        return False

    eventually(nobody_reads, "the input to be closed")


def test_the_reader_may_come_and_go(rig: Rig, stdout: Reader) -> None:
    rig.run("a", "sleep", stdout=stdout.path)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    os.close(stdout.descriptor)
    process.stdout.put(b"while away")
    stdout.descriptor = os.open(stdout.path, os.O_RDONLY | os.O_NONBLOCK)
    assert stdout.read(10) == b"while away"


def test_output_that_nobody_wants_is_fetched_all_the_same(rig: Rig) -> None:
    rig.run("a", "flood", str(MANY))
    assert rig.wait("a") == 0
    process = rig.group.guest.process(guest_container_id("default", "a"))
    eventually(process.stdout.empty, "the output to be taken")


@pytest.mark.usefixtures("complete_output")
def test_output_to_one_file_for_both(rig: Rig, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/new/folder/log"
    rig.run("a", "sleep", stdout=uri, stderr=uri)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.stdout.put(b"out")
    process.stderr.put(b"err")
    process.exit(0)
    rig.wait("a")
    path = tmp_path / "new/folder/log"
    assert sorted([path.read_text()[:3], path.read_text()[3:]]) == ["err", "out"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.usefixtures("complete_output")
def test_an_existing_file_and_a_device_are_written_to_and_left_alone(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("before ")
    file.chmod(0o600)
    rig.run("a", "echo", "after", stdout=str(file), stderr="/dev/null")
    rig.wait("a")
    assert file.read_text() == "before after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"stdout": "/nowhere/fifo"}, NotFound),
        ({"stdin": "/nowhere/fifo"}, NotFound),
        ({"stdout": "file:///proc/nothing/log"}, NotFound),
        ({"stdout": "binary:///nowhere/logger"}, Unavailable),
        ({"stdout": "ttrpc+unix:///x?streaming_id=y"}, Malformed),
        ({"stdin": "file:///etc/hostname"}, Malformed),
    ],
)
def test_stdio_that_cannot_be_opened_fails_the_create(rig: Rig, fields: dict[str, str], error: type[Exception]) -> None:
    before = descriptors()
    with pytest.raises(error):
        rig.create("a", "sleep", **fields)
    eventually(lambda: descriptors() <= before, "what it opened to be closed")  # earlier tests' loggers may just end
    assert rig.group.created == []


def test_a_denied_create_ends_the_output_at_once(rig: Rig, stdout: Reader) -> None:
    with pytest.raises(Exception, match="invalid command"):
        rig.create("a", "denied", stdout=stdout.path)
    assert stdout.read_to_end() == b""


def test_a_denied_exec_ends_the_output_at_once(rig: Rig, stdout: Reader) -> None:
    rig.run("a")
    rig.exec("a", "e", "denied", stdout=stdout.path)
    with pytest.raises(Exception, match="invalid command"):
        rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    assert stdout.read_to_end() == b""


def test_input_of_any_size_reaches_the_process(rig: Rig, stdin: str, stdout: Reader) -> None:
    import threading

    rig.run("a", "cat", stdin=stdin, stdout=stdout.path)

    def write() -> None:
        with open(stdin, "wb") as fifo:
            fifo.write(b"i" * MANY)
        close_stdin(rig, "a")

    writer = threading.Thread(target=write)
    writer.start()
    assert len(stdout.read_to_end()) == MANY
    writer.join()
    assert rig.wait("a") == 0


def test_a_client_that_detaches_is_no_end_of_input(rig: Rig, stdin: str, stdout: Reader) -> None:
    rig.run("a", "cat", stdin=stdin, stdout=stdout.path)
    for text in (b"first", b"again"):
        with open(stdin, "wb") as fifo:
            fifo.write(text)
        assert stdout.read(5) == text
    assert rig.status("a") == "RUNNING"
    close_stdin(rig, "a")
    assert rig.wait("a") == 0


def test_close_io_before_the_start_keeps_what_was_written(rig: Rig, stdin: str, stdout: Reader) -> None:
    rig.create("a", "cat", stdin=stdin, stdout=stdout.path)
    client = os.open(stdin, os.O_RDWR)
    os.write(client, b"early")
    close_stdin(rig, "a")
    close_stdin(rig, "a")
    rig.call("Start", task_pb2.StartRequest(id="a"))
    assert stdout.read(5) == b"early"
    os.close(client)
    assert stdout.read_to_end() == b""
    assert rig.wait("a") == 0


def test_the_input_is_not_opened_before_the_start(rig: Rig, stdin: str) -> None:
    """A client's end opens with ours; ctr must not reach the end of its input before Create has returned."""
    rig.create("a", "cat", stdin=stdin)
    with pytest.raises(OSError, match="No such device or address"):
        os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
    rig.call("Start", task_pb2.StartRequest(id="a"))
    os.close(os.open(stdin, os.O_WRONLY | os.O_NONBLOCK))


def test_close_io_of_an_exec_before_its_start(rig: Rig, stdin: str, stdout: Reader) -> None:
    rig.run("a")
    rig.exec("a", "e", "cat", stdin=stdin, stdout=stdout.path)
    close_stdin(rig, "a", "e")
    rig.call("Start", task_pb2.StartRequest(id="a", exec_id="e"))
    assert rig.wait("a", "e") == 0


def test_close_io_counts_even_if_the_client_keeps_its_end_open(
    rig: Rig, stdin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "GRACE", 0.05)
    rig.run("a", "cat", stdin=stdin)
    with open(stdin, "wb") as fifo:
        fifo.write(b"x")
        fifo.flush()
        close_stdin(rig, "a")
        assert rig.wait("a") == 0


def test_input_of_a_process_that_ends_is_let_go(rig: Rig, stdin: str) -> None:
    rig.run("a", "sleep", stdin=stdin)
    rig.call("Kill", task_pb2.KillRequest(id="a", signal=9))
    assert rig.wait("a") == 137
    delete(rig, "a")
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads the fifo any more
        os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)


def test_the_guest_is_told_whether_there_is_input(rig: Rig, stdin: str) -> None:
    rig.create("a", "cat", stdin=stdin)
    rig.create("b", "cat")
    assert [spec.stdin for spec in rig.group.created] == [True, False]


LOGGER = """\
import os, sys
os.write(5, b"1") if {ready} else os.close(5)
seen = [sys.argv[1:], dict(os.environ), os.read(3, 5).decode(), os.read(4, 5).decode()]
while os.read(3, 100): pass
open({out!r}, "w").write(repr(seen))
"""


def logger(tmp_path: Path, *, ready: bool = True) -> tuple[str, Path]:
    out = tmp_path / "seen"
    (tmp_path / "logger.py").write_text(LOGGER.format(ready=ready, out=str(out)))
    script = tmp_path / "logger"
    script.write_text(f"#!/usr/bin/python3 -IS\nexec(open({str(tmp_path / 'logger.py')!r}).read())\n")
    script.chmod(0o755)
    return f"binary://{script}?k=v%20w&flag=", out


@pytest.mark.parametrize("ready", [True, False])
def test_a_logger_gets_arguments_environment_and_both_streams(rig: Rig, tmp_path: Path, ready: bool) -> None:
    uri, out = logger(tmp_path, ready=ready)
    rig.run("a", "sleep", stdout=uri, stderr=uri)
    process = rig.group.guest.process(guest_container_id("default", "a"))
    process.stdout.put(b"hello")
    process.stderr.put(b"world")
    process.exit(0)
    rig.wait("a")
    delete(rig, "a")
    seen = eval(eventually(lambda: out.exists() and out.read_text(), "the logger's end"))  # noqa: S307
    assert seen[0] == ["k", "v w", "flag"]
    environment = {name: value for name, value in seen[1].items() if name.startswith("CONTAINER")}
    assert environment == {"CONTAINER_ID": "a", "CONTAINER_NAMESPACE": "default"}
    assert set(seen[1]) <= {"CONTAINER_ID", "CONTAINER_NAMESPACE", "PARMA_SHIM", "LC_CTYPE"}
    assert seen[2:] == ["hello", "world"]


def test_a_logger_that_dies_does_not_stop_the_container(rig: Rig) -> None:
    rig.run("a", "flood", str(MANY), stdout="binary:///bin/true")
    assert rig.wait("a") == 0
    process = rig.group.guest.process(guest_container_id("default", "a"))
    eventually(process.stdout.empty, "the output to be taken")


def test_a_logger_of_the_second_kind_must_get_ready(rig: Rig) -> None:
    with pytest.raises(Unavailable, match="before it was ready"):
        rig.create("a", "sleep", stdout="binary-v2:///bin/true")


def test_a_terminal_has_no_stream_for_errors(rig: Rig, stdout: Reader) -> None:
    rig.run("a", "echo", "tty", stdout=stdout.path, terminal=True)
    assert stdout.read_to_end() == b"tty"
    assert rig.group.created[0].terminal
