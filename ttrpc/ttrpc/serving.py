# SPDX-License-Identifier: Apache-2.0
"""One connection of a server.

A reader thread cuts frames and starts each request on a worker; the worker writes the answer. Nothing is kept for a
request once it was answered.

::

    request --> refused (answered by the reader)
            \\-> running --> answered (by its worker)
                       \\-> given up (answered by the reader, or nobody is left to answer); its worker goes on, unheard

What a peer can make this hold is bounded: requests running (``max_in_flight``), bytes of requests and of stream
messages not yet taken (``Budget``), one frame being received. Whatever is too much is answered with
RESOURCE_EXHAUSTED on its own stream. Refusals are written by the reader, so a peer that does not read them is not read
either.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ttrpc import envelope, frames, service
from ttrpc.channel import Channel
from ttrpc.context import Context
from ttrpc.errors import Status, TtrpcError, status_of
from ttrpc.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from ttrpc.budget import Budget
    from ttrpc.workers import Workers


_LONGEST_DEADLINE: Final = 2_000_000
"""Seconds (23 days). A client's longer deadline is as good as none, and more than ``poll`` can wait for."""


class Call:
    """One request being served."""

    __slots__ = ("answered", "context", "inbox", "method", "stream_id")

    def __init__(self, stream_id: int, method: service.Method, context: Context, inbox: Inbox | None) -> None:
        self.stream_id = stream_id
        self.method = method
        self.context = context
        self.inbox = inbox  # of a streaming method
        self.answered = False  # the last frame was sent or is being sent


class ServerStream:
    """The server's end of one stream. One thread may receive while another sends."""

    __slots__ = ("_call", "_channel", "_inbox")

    def __init__(self, call: Call, inbox: Inbox, channel: Channel) -> None:
        self._call = call
        self._inbox = inbox
        self._channel = channel

    def recv(self, timeout: float | None = None) -> Any:
        """The client's next message, or ``None`` when it has closed its side.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED after ``timeout`` seconds (the stream stays usable); UNAVAILABLE when the
                client is gone; INVALID_ARGUMENT for bytes that are no such message.
        """
        data = self._inbox.get(None if timeout is None else time.monotonic() + timeout)
        return None if data is None else service.parse(self._call.method.request_class, data, Status.INVALID_ARGUMENT)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Sends one message; waits while the client does not read.

        Raises:
            TtrpcError: DEADLINE_EXCEEDED after ``timeout`` seconds; UNAVAILABLE when the client is gone; CANCELLED
                when the stream was given up; RESOURCE_EXHAUSTED for a message that is too long.
        """

        def frame() -> bytes:
            if self._call.answered:
                raise TtrpcError(Status.CANCELLED, "the stream is closed")
            return frames.encode(self._call.stream_id, frames.DATA, 0, message.SerializeToString())

        self._channel.send(frame, None if timeout is None else time.monotonic() + timeout)


class ServerConnection:
    """Serves one socket until its peer is gone or :meth:`shutdown` is called."""

    def __init__(
        self,
        channel: Channel,
        *,
        find: Callable[[str, str], service.Method],
        workers: Workers,
        budget: Budget,
        max_in_flight: int,
        max_message: int,
        log: Callable[[str], None],
        interceptor: service.Interceptor = service.call_handler,
    ) -> None:
        self._channel = channel
        self._find = find
        self._workers = workers
        self._budget = budget
        self._max_in_flight = max_in_flight
        self._max_message = max_message
        self._log = log
        self._interceptor = interceptor
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._running = 0
        self._draining = False

    def shutdown(self) -> None:
        """Ends the connection; requests in progress are cancelled."""
        self._channel.shutdown()

    def run(self) -> None:
        """Reads until the end. A peer that only closed its sending side still gets the answers it waits for."""
        decoder = frames.Decoder(self._admit)
        try:
            while data := self._channel.receive():
                for frame in decoder.feed(data):
                    self._take(frame)
            self._drain()
        finally:
            self._channel.shutdown()
            self._give_up_all()
            self._channel.close()
            self._budget.release(decoder.unfinished or 0)

    def _admit(self, _stream_id: int, _type: int, length: int) -> bool:
        return length <= self._max_message and self._budget.reserve(length)

    def _take(self, frame: frames.Frame) -> None:
        """Deals with one frame. Whoever keeps its payload releases the payload's share of the budget."""
        if frame.payload is None:
            limit = f"at most {self._max_message}" if frame.length > self._max_message else "too many bytes in flight"
            self._refuse(frame, Status.RESOURCE_EXHAUSTED, f"message of {frame.length} bytes: {limit}")
            return
        kept = False
        try:
            if frame.stream_id % 2 != 1:
                self._refuse(frame, Status.INVALID_ARGUMENT, "a client's stream id must be odd")
            elif frame.type == frames.REQUEST:
                kept = self._take_request(frame, frame.payload)
            elif frame.type == frames.DATA:
                kept = self._take_data(frame, frame.payload)
            # Other types are from a later version of the protocol: ignored.
        finally:
            if not kept:
                self._budget.release(frame.length)

    def _take_request(self, frame: frames.Frame, payload: bytes) -> bool:
        if frame.stream_id <= self._last_id:
            self._refuse(frame, Status.INVALID_ARGUMENT, "a stream id cannot be used again and must increase")
            return False
        self._last_id = frame.stream_id
        try:
            request = envelope.decode_request(payload)
            call = self._call_for(frame, request)
            # The inbox releases a first message when it is taken, the worker the rest of the frame at the end.
            held = frame.length if call.inbox is None else frame.length - len(request.payload)
            self._start(call, request.payload, held)
        except envelope.EnvelopeError as error:
            self._refuse(frame, Status.INVALID_ARGUMENT, f"not a request: {error}")
            return False
        except TtrpcError as error:
            self._refuse(frame, error.code, error.message)
            return False
        return True

    def _call_for(self, frame: frames.Frame, request: envelope.Request) -> Call:
        method = self._find(request.service, request.method)
        if request.timeout_nano < 0:
            raise TtrpcError(Status.DEADLINE_EXCEEDED, "the deadline had passed")
        seconds = request.timeout_nano / 1e9
        deadline = time.monotonic() + seconds if 0 < seconds < _LONGEST_DEADLINE else None
        context = Context(request.metadata, deadline, self._channel.socket)
        inbox = None
        if method.streaming:
            inbox = Inbox(self._budget.release)
            if request.payload or not method.client_streaming:
                inbox.put(request.payload)
            if not (method.client_streaming and frame.flags & frames.REMOTE_OPEN):
                inbox.end()
        return Call(frame.stream_id, method, context, inbox)

    def _start(self, call: Call, payload: bytes, size: int) -> None:
        with self._lock:
            if self._running >= self._max_in_flight:
                raise TtrpcError(
                    Status.RESOURCE_EXHAUSTED, f"{self._max_in_flight} requests are in flight on this connection"
                )
            self._running += 1
            self._calls[call.stream_id] = call
        try:
            self._workers.submit(lambda: self._run(call, payload, size))
        except TtrpcError:
            with self._lock:
                self._running -= 1
                del self._calls[call.stream_id]
            raise

    def _take_data(self, frame: frames.Frame, payload: bytes) -> bool:
        """A stream's message. True when the inbox took it (and will release it)."""
        with self._lock:
            call = self._calls.get(frame.stream_id)
        if call is None or call.inbox is None or call.inbox.ended:
            if call is None or not call.answered:
                self._refuse(frame, Status.INVALID_ARGUMENT, "the stream takes no data")
            return False
        kept = not frame.flags & frames.NO_DATA
        if kept and not call.inbox.put(payload):
            self._refuse(frame, Status.RESOURCE_EXHAUSTED, "the stream's messages are not being taken")
        elif frame.flags & frames.REMOTE_CLOSED:
            call.inbox.end()
        return kept

    def _refuse(self, frame: frames.Frame, code: int, message: str) -> None:
        """Answers a frame that was not accepted and ends its stream, if it has one.

        A repeated request does not end the stream whose id it repeats: that one still gets its own answer.
        """
        with self._lock:
            call = None if frame.type == frames.REQUEST else self._calls.get(frame.stream_id)
        answer = envelope.encode_response(envelope.Response(code, message))
        with contextlib.suppress(TtrpcError):  # the peer is gone, as the next read will show
            if call is None:
                self._channel.send(lambda: frames.encode(frame.stream_id, frames.RESPONSE, 0, answer))
            else:
                self._answer(call, frames.RESPONSE, 0, answer)
        if call is not None:
            self._give_up(call, TtrpcError(code, message))

    def _answer(self, call: Call, type_: int, flags: int, payload: bytes) -> None:
        """Sends the last frame of a stream, once."""
        with self._lock:
            if call.answered:
                return
            call.answered = True
        try:
            self._channel.send(lambda: frames.encode(call.stream_id, type_, flags, payload))
        finally:
            with self._lock:
                self._calls.pop(call.stream_id, None)

    def _run(self, call: Call, payload: bytes, size: int) -> None:
        """A worker's job: one request from its message to its answer. Never raises."""
        try:
            if call.inbox is None:
                type_, flags, answer = self._run_unary(call, payload)
            else:
                type_, flags, answer = self._run_stream(call, call.inbox)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises, its client gets an answer
            type_, flags, answer = frames.RESPONSE, 0, self._answer_for(call, error)
        with contextlib.suppress(TtrpcError):  # the peer is gone, as the reader sees too
            self._answer(call, type_, flags, answer)
        if call.inbox is not None:
            call.inbox.fail(TtrpcError(Status.CANCELLED, "the stream is closed"))
        self._finish(call)
        self._budget.release(size)
        with self._lock:
            self._running -= 1
            drained = self._draining and not self._running
        if drained:
            self._channel.shutdown()

    def _run_unary(self, call: Call, payload: bytes) -> tuple[int, int, bytes]:
        method = call.method
        request = service.parse(method.request_class, payload, Status.INVALID_ARGUMENT)
        handle = partial(method.handler, request, call.context)
        return frames.RESPONSE, 0, _success(self._interceptor(method.name, request, call.context, handle))

    def _run_stream(self, call: Call, inbox: Inbox) -> tuple[int, int, bytes]:
        result = call.method.handler(ServerStream(call, inbox, self._channel), call.context)
        if call.method.server_streaming:
            return frames.DATA, frames.REMOTE_CLOSED | frames.NO_DATA, b""
        return frames.RESPONSE, 0, _success(result)

    def _answer_for(self, call: Call, error: BaseException) -> bytes:
        status = status_of(error)
        if status is None:
            self._log_failure(f"{call.method.name} failed", error)
            status = Status.UNKNOWN, "the server failed"
        return envelope.encode_response(envelope.Response(*status))

    def _finish(self, call: Call) -> None:
        try:
            call.context.finish()
        except BaseException as error:  # noqa: BLE001 - someone else's callback
            self._log_failure(f"after the reply of {call.method.name}", error)

    def _log_failure(self, what: str, error: BaseException) -> None:
        try:
            from traceback import format_exception

            text = "".join(format_exception(error)).rstrip()
        except Exception:  # noqa: BLE001 - nothing can be imported without descriptors, and the client waits
            text = repr(error)
        self._log(f"ttrpc: {what}: {text}")

    def _drain(self) -> None:
        """The peer sends no more: waits for its last answer, for as long as it is there to read them."""
        with self._lock:
            calls = list(self._calls.values())
        for call in calls:
            if call.inbox is not None:
                call.inbox.end()
        with self._lock:
            self._draining = True
            if not self._running:
                return
        self._channel.wait_for_hang_up()

    def _give_up_all(self) -> None:
        with self._lock:
            calls = list(self._calls.values())
            self._calls.clear()
            for call in calls:
                call.answered = True
        for call in calls:
            self._give_up(call, TtrpcError(Status.UNAVAILABLE, "the client is gone"))

    def _give_up(self, call: Call, error: TtrpcError) -> None:
        """Tells the handler that nobody waits for it any more."""
        if call.inbox is not None:
            call.inbox.fail(error)
        try:
            call.context.cancel()
        except Exception as failure:  # noqa: BLE001 - someone else's callback
            self._log_failure(f"cancelling {call.method.name}", failure)


def _success(message: Message) -> bytes:
    """A successful ``Response``; one that no frame can hold becomes the error that says so."""
    answer = envelope.encode_response(envelope.Response(payload=message.SerializeToString()))
    if len(answer) > frames.MESSAGE_MAX:
        raise TtrpcError(Status.RESOURCE_EXHAUSTED, f"the answer has {len(answer)} bytes, more than a frame holds")
    return answer
