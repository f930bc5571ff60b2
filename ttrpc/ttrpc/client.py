# SPDX-License-Identifier: Apache-2.0
"""The client: calls and streams over one connected socket, from any number of threads."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from ttrpc import envelope, frames, service, workers
from ttrpc.channel import Channel, remaining
from ttrpc.errors import Status, TtrpcError
from ttrpc.inbox import Inbox

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any

    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

_LAST_STREAM_ID: Final = 0xFFFF_FFFF
_MAX_TIMEOUT_NANO: Final = (1 << 63) - 1


class _Receiver(Protocol):
    """Who waits for the frames of one stream id."""

    id: int

    def deliver(self, frame: frames.Frame) -> None: ...
    def fail(self, error: TtrpcError) -> None: ...


class _Answer:
    """Waits for the one frame that answers a call; the lock is held until it is there."""

    __slots__ = ("_arrived", "_frame", "id")

    def __init__(self) -> None:
        self.id = 0
        self._frame: frames.Frame | TtrpcError | None = None
        self._arrived = threading.Lock()
        self._arrived.acquire()

    def deliver(self, frame: frames.Frame) -> None:
        self._set(frame)

    def fail(self, error: TtrpcError) -> None:
        self._set(error)

    def _set(self, outcome: frames.Frame | TtrpcError) -> None:
        """Called by the reader only, so there is no race for being the first."""
        if self._frame is None:
            self._frame = outcome
            self._arrived.release()

    def wait(self, deadline: float | None) -> frames.Frame:
        wait = remaining(deadline)
        if not self._arrived.acquire(timeout=-1 if wait is None else wait):
            raise TtrpcError(Status.DEADLINE_EXCEEDED, "no answer in time")
        if isinstance(self._frame, frames.Frame):
            return self._frame
        error = self._frame or TtrpcError(Status.INTERNAL, "no answer")
        raise TtrpcError(error.code, error.message)


class ClientStream:
    """The client's end of one stream. One thread may receive while another sends. Close it when done."""

    def __init__(
        self, client: Client, response_class: type[Message], *, client_streaming: bool, server_streaming: bool
    ) -> None:
        self._client = client
        self._response_class = response_class
        self._server_streaming = server_streaming
        self._inbox = Inbox()
        self._send_closed = not client_streaming
        self.id = 0

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Sends one message; waits while the server does not read.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED after ``timeout`` seconds; UNAVAILABLE when the connection is down;
                FAILED_PRECONDITION after :meth:`close_send`; RESOURCE_EXHAUSTED for a message that is too long.
        """
        if self._send_closed:
            raise TtrpcError(Status.FAILED_PRECONDITION, "this side of the stream is closed")
        data = frames.encode(self.id, frames.DATA, 0, message.SerializeToString())
        self._client.transmit(lambda: data, timeout)

    def close_send(self, timeout: float | None = None) -> None:
        """Tells the server that no message follows. Idempotent.

        Raises:
            TtrpcError: as :meth:`send`.
        """
        if self._send_closed:
            return
        self._send_closed = True
        data = frames.encode(self.id, frames.DATA, frames.REMOTE_CLOSED | frames.NO_DATA)
        try:
            self._client.transmit(lambda: data, timeout)
        except TtrpcError:
            self._send_closed = False
            raise

    def recv(self, timeout: float | None = None) -> Any:
        """The server's next message, or ``None`` after the last one.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED after ``timeout`` seconds (the stream stays usable); the server's status;
                UNAVAILABLE when the connection died; RESOURCE_EXHAUSTED when messages came faster than they were
                taken.
        """
        data = self._inbox.get(None if timeout is None else time.monotonic() + timeout)
        return None if data is None else service.parse(self._response_class, data, Status.INTERNAL)

    def close(self) -> None:
        """Forgets the stream: closes this side, if that is possible without waiting, and drops what arrives."""
        self._client.forget(self.id)
        finished = self._inbox.ended
        self._inbox.fail(TtrpcError(Status.CANCELLED, "the stream is closed"))
        if not finished:
            with contextlib.suppress(TtrpcError):  # down or stuck: the server will notice that instead
                self.close_send(timeout=0)

    def __enter__(self) -> ClientStream:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()

    def deliver(self, frame: frames.Frame) -> None:
        """Takes a frame. Called by the reader."""
        if frame.payload is None:
            return
        if frame.type == frames.RESPONSE:
            self._deliver_response(frame.payload)
        elif not frame.flags & frames.NO_DATA and not self._inbox.put(frame.payload):
            self.fail(TtrpcError(Status.RESOURCE_EXHAUSTED, "the stream's messages are not being taken"))
        elif frame.flags & frames.REMOTE_CLOSED:
            self._inbox.end()
        if self._inbox.ended:
            self._client.forget(self.id)

    def _deliver_response(self, data: bytes) -> None:
        try:
            response = envelope.decode_response(data)
        except envelope.EnvelopeError as error:
            self.fail(TtrpcError(Status.INTERNAL, f"not a response: {error}"))
            return
        if response.code != Status.OK:
            self.fail(TtrpcError(response.code, response.message))
            return
        if response.payload or not self._server_streaming:
            self._inbox.put(response.payload)
        self._inbox.end()

    def fail(self, error: TtrpcError) -> None:
        """Ends the stream; what has arrived can still be taken. Called by the reader."""
        self._inbox.fail(error, drop=False)


class Client:
    """One connection to a server.

    A thread reads until the connection ends, so a client that is no longer needed must be closed.

    Args:
        sock: a connected stream socket; the client closes it.
        write_chunk: most bytes handed to one ``send`` of the socket.
        max_message: longest frame accepted, in bytes.
        on_close: called once when the connection has ended, by whichever side, after all calls have failed.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        write_chunk: int | None = None,
        max_message: int = frames.MESSAGE_MAX,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._channel = Channel(sock, write_chunk)
        self._max_message = min(max_message, frames.MESSAGE_MAX)
        self._on_close = on_close
        self._lock = threading.Lock()
        self._receivers: dict[int, _Receiver] = {}
        self._next_id = 1
        self._closed = False
        self._reader = workers.start_thread(self._read, "ttrpc-client", workers.READER_STACK_SIZE)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._closed

    def close(self) -> None:
        """Ends the connection: all calls fail with UNAVAILABLE. Returns at once. Idempotent."""
        self._closed = True
        self._channel.shutdown()

    def join(self, timeout: float | None = None) -> None:
        """Waits until the connection has ended and ``on_close`` has returned, at most ``timeout`` seconds."""
        self._reader.join(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()

    def call(
        self,
        service_name: str,
        method: str,
        request: Message,
        response_class: type[M],
        *,
        timeout: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> M:
        """A unary call.

        Args:
            service_name: with its package, as ``containerd.task.v3.Task``.
            timeout: seconds for everything, ``None`` for no limit. The server is told.

        Raises:
            TtrpcError: the server's status; DEADLINE_EXCEEDED when no answer came in time; UNAVAILABLE when the
                connection is down; RESOURCE_EXHAUSTED when request or answer are too long; INTERNAL when the answer
                makes no sense.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        answer = _Answer()
        self._open(_request(service_name, method, request, timeout, metadata), 0, answer, deadline)
        try:
            frame = answer.wait(deadline)
        finally:
            self.forget(answer.id)
        if frame.type != frames.RESPONSE or frame.payload is None:
            raise TtrpcError(Status.INTERNAL, "stream data in answer to a unary call")
        try:
            response = envelope.decode_response(frame.payload)
        except envelope.EnvelopeError as error:
            raise TtrpcError(Status.INTERNAL, f"not a response: {error}") from error
        if response.code != Status.OK:
            raise TtrpcError(response.code, response.message)
        message: M = service.parse(response_class, response.payload, Status.INTERNAL)
        return message

    def stream(
        self,
        service_name: str,
        method: str,
        response_class: type[Message],
        *,
        request: Message | None = None,
        client_streaming: bool = True,
        server_streaming: bool = True,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ClientStream:
        """Opens a stream.

        Args:
            request: the one message of a client that streams none.
            client_streaming: whether messages can be sent afterwards.
            server_streaming: whether the server answers with any number of messages; otherwise with one.
            timeout: seconds for opening; the server is told and may apply it to the whole stream.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED as for :meth:`call`.
        """
        stream = ClientStream(
            self, response_class, client_streaming=client_streaming, server_streaming=server_streaming
        )
        flags = frames.REMOTE_OPEN if client_streaming else frames.REMOTE_CLOSED
        deadline = None if timeout is None else time.monotonic() + timeout
        self._open(_request(service_name, method, request, timeout, metadata), flags, stream, deadline)
        return stream

    def transmit(self, frame: Callable[[], bytes], timeout: float | None) -> None:
        """Writes one frame. For this module's streams."""
        self._channel.send(frame, None if timeout is None else time.monotonic() + timeout)

    def forget(self, stream_id: int) -> None:
        """Drops what else arrives for a stream. For this module's streams."""
        with self._lock:
            self._receivers.pop(stream_id, None)

    def _open(self, request: bytes, flags: int, receiver: _Receiver, deadline: float | None) -> None:
        """Sends a request frame under a new stream id. Ids must reach the server in order: taken under its lock."""

        def frame() -> bytes:
            with self._lock:
                if self._closed or self._next_id > _LAST_STREAM_ID:
                    raise TtrpcError(Status.UNAVAILABLE, "the connection is closed")
                data = frames.encode(self._next_id, frames.REQUEST, flags, request)
                receiver.id = self._next_id
                self._next_id += 2
                self._receivers[receiver.id] = receiver
            return data

        try:
            self._channel.send(frame, deadline)
        except TtrpcError:
            self.forget(receiver.id)
            raise

    def _read(self) -> None:
        decoder = frames.Decoder(self._admit)
        try:
            while data := self._channel.receive():
                for frame in decoder.feed(data):
                    self._take(frame)
        finally:
            with self._lock:
                self._closed = True
                receivers = list(self._receivers.values())
                self._receivers.clear()
            for receiver in receivers:
                receiver.fail(TtrpcError(Status.UNAVAILABLE, "the connection is closed"))
            self._channel.close()
            if self._on_close is not None:
                self._on_close()

    def _admit(self, stream_id: int, _type: int, length: int) -> bool:
        """Nothing is kept for a stream that nobody waits for."""
        return length <= self._max_message and stream_id in self._receivers

    def _take(self, frame: frames.Frame) -> None:
        with self._lock:
            receiver = self._receivers.get(frame.stream_id)
        if receiver is None:
            return
        if frame.payload is None:
            self.forget(frame.stream_id)
            receiver.fail(TtrpcError(Status.RESOURCE_EXHAUSTED, f"the server's message has {frame.length} bytes"))
        elif frame.type in (frames.RESPONSE, frames.DATA):
            receiver.deliver(frame)


def _request(
    service_name: str, method: str, message: Message | None, timeout: float | None, metadata: Mapping[str, str] | None
) -> bytes:
    payload = b"" if message is None else message.SerializeToString()
    nanoseconds = 0 if timeout is None else min(max(1, int(timeout * 1e9)), _MAX_TIMEOUT_NANO)
    return envelope.encode_request(envelope.Request(service_name, method, payload, nanoseconds, metadata or {}))
