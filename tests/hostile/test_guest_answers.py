# SPDX-License-Identifier: Apache-2.0
"""A hostile guest answers the shim: row R62. Nothing on the host is touched, and memory stays bounded."""

from __future__ import annotations

import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ttrpc
from parma_shim.guest import MAX_RECORDING, GuestClient, clean_text, guest_error
from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError, Unavailable
from parma_wire.limits import POLICY_CHUNK
from tests.vm.fake_guest import FakeGuest
from ttrpc import frames

ID = "a" * 64
HOSTILE = (
    "../../../../etc/cron.d/x",
    "/etc/passwd",
    "%s%n%x" * 20,
    "\x1b]0;owned\x07",
    "\0",
    "a\nb",
    "x" * 5000,
    "$(reboot)",
)

CALLS: dict[str, Callable[[GuestClient], Any]] = {
    "Hello": lambda c: c.hello(),
    "SetPolicy": lambda c: c.set_policy(b"x"),
    "Evidence": lambda c: c.evidence(bytes(64)),
    "Recording": lambda c: c.recording(),
    "CreateContainer": lambda c: c.create_container(pb.CreateContainerRequest(container_id=ID)),
    "ExecProcess": lambda c: c.exec_process(ID, "e", pb.Process()),
    "WaitProcess": lambda c: c.wait_process(ID, ""),
    "ListProcesses": lambda c: c.list_processes(ID),
    "Stats": lambda c: c.stats(ID),
}
"""Every call whose answer says something."""

_touched: list[tuple[str, str]] = []
_watching = threading.Event()
_strangers: set[threading.Thread] = set()
"""Threads that earlier tests have left, and that go about their own business."""
_WRITING = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.chown",
    "os.truncate",
}
_RUNNING = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "socket.connect", "socket.bind"}


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    touches = event in _WRITING or event in _RUNNING or (event == "open" and _writes(arguments))
    if _watching.is_set() and touches and threading.current_thread() not in _strangers:
        _touched.append((event, str(arguments[:2])))


def _writes(arguments: tuple[object, ...]) -> bool:
    mode = arguments[1] if len(arguments) > 1 else None
    flags = arguments[2] if len(arguments) > 2 else 0
    return (isinstance(mode, str) and mode != "r" and mode != "rb") or (isinstance(flags, int) and bool(flags & 3))


sys.addaudithook(_audit)


@pytest.fixture(scope="module", autouse=True)
def _strangers_are_known() -> Iterator[None]:
    _strangers.update(set(threading.enumerate()) - {threading.current_thread()})
    yield
    _strangers.clear()


def values(field: Any) -> st.SearchStrategy[Any]:
    """Anything that the field can hold."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return answers(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.sampled_from(HOSTILE) | st.text(max_size=50)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from([text.encode() for text in HOSTILE]) | st.binary(max_size=2000)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    most = 2**64 - 1 if field.type == FieldDescriptor.TYPE_UINT64 else 2**32 - 1
    return st.sampled_from([0, 1, 255, 256, 2**22 + 1, most]) | st.integers(0, most)


def answers(kind: Any) -> st.SearchStrategy[Any]:
    """Any message of this kind."""
    fields = {
        field.name: st.lists(values(field), max_size=40) if field.is_repeated else values(field)
        for field in kind.fields
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: kind._concrete_class(**chosen))


@pytest.mark.parametrize("method", CALLS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_R62_no_answer_makes_the_shim_touch_anything(
    guest: FakeGuest, client: GuestClient, method: str, data: st.DataObject
) -> None:
    guest.policy = b""
    guest.answers[method] = data.draw(answers(getattr(pb, f"{method}Response").DESCRIPTOR))
    _touched.clear()
    _watching.set()
    try:
        result = CALLS[method](client)
    except ParmaError as error:
        text = str(error)
        assert text.isprintable()
        assert len(text) < 4000
    else:
        for text in _texts(result):
            assert text.isprintable()
            assert len(text) <= 64
            assert "/" not in text or method == "Hello"
    finally:
        _watching.clear()
    assert _touched == []


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def test_R62_the_watch_itself_sees_what_is_touched(tmp_path: Any) -> None:
    _touched.clear()
    _watching.set()
    (tmp_path / "x").write_text("y")
    _watching.clear()
    assert _touched


def test_R62_errors_of_the_guest_are_one_short_printable_line() -> None:
    for text in HOSTILE:
        for code in (0, 2, 5, 7, 9, 13, 16, -1, 2**31 - 1):
            error = guest_error("Stats", code, text * 1000)
            assert isinstance(error, ParmaError)
            assert str(error).isprintable()
            assert len(str(error)) < 4000
        assert clean_text(text, 20).isprintable()


def test_R62_an_endless_recording_ends(guest: FakeGuest, client: GuestClient) -> None:
    piece = b"x" * POLICY_CHUNK
    guest.answers["Recording"] = pb.RecordingResponse(data=piece, size=2**32 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="longer"):
            client.recording()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(guest.requests) <= MAX_RECORDING // len(piece) + 2
    assert most < 4 * MAX_RECORDING
    for little in (b"", b"x", piece[1:]):
        guest.answers["Recording"] = pb.RecordingResponse(data=little, size=2**32 - 1)
        with pytest.raises(Malformed, match="shorter"):
            client.recording()


class Flood:
    """The guest's end of a connection that answers what nobody asked, for ever."""

    def __init__(self, frame: bytes) -> None:
        self.near, self._far = socket.socketpair()
        self._frame = frame
        self.sent = 0
        self._flows = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._flows.wait(60)  # the client may end the connection at the first of them

    def _run(self) -> None:
        try:
            while self.sent < 64 << 20:
                self._far.sendall(self._frame)
                self.sent += len(self._frame)
                if self.sent > len(self._frame):
                    self._flows.set()
        except OSError:
            return

    def close(self) -> None:
        self._far.close()
        self._thread.join(60)


def frame(stream_id: int, kind: int, payload: bytes) -> bytes:
    """The ten bytes of ttrpc's header and what follows."""
    return len(payload).to_bytes(4, "big") + stream_id.to_bytes(4, "big") + bytes([kind, 0]) + payload


@pytest.mark.parametrize(
    "flood",
    [
        frame(4711, frames.RESPONSE, b"\x12\x04nope"),
        frame(2, 3, b"x" * 10_000),
        frame(1, 99, b"x" * 100),
        frame(3, 3, b""),
    ],
    ids=["answers nobody waits for", "data of no stream", "frames of no kind", "empty data"],
)
def test_R62_a_flood_of_what_nobody_asked_for_costs_no_memory_and_no_call(flood: bytes) -> None:
    guest = Flood(flood)
    connection = ttrpc.Client(guest.near)
    client = GuestClient(connection, timeout=0.3)
    tracemalloc.start()
    try:
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, Unavailable, Malformed, ParmaError)):
            client.stats(ID)
        assert time.monotonic() - began < 30
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        connection.close()
        guest.close()
    assert guest.sent > len(flood)
    assert most < 16 << 20
