# SPDX-License-Identifier: Apache-2.0
"""Events on their way to containerd: one queue, one order, delivered when containerd can be reached.

The order of :meth:`Publisher.publish` calls is the order of delivery. An event stays at the head of the queue until
containerd has accepted it, so one that is down (kill -9, upgrade) misses nothing; delivery is at least once. The
queue is bounded: when containerd stays away, events that only announce progress are dropped first, and exits, OOM
kills and deletions last.
"""

from __future__ import annotations

import collections
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from google.protobuf import any_pb2, empty_pb2, timestamp_pb2
from google.protobuf.message import Message

import ttrpc
from parma_shim.api import event_service_pb2, types_pb2

SERVICE: Final = "containerd.services.events.ttrpc.v1.Events"
FORWARD_TIMEOUT: Final = 5.0
MAX_QUEUED: Final = 4096
KEPT_TOPICS: Final = frozenset({"/tasks/exit", "/tasks/oom", "/tasks/delete"})
_REFUSALS: Final = 3  # containerd answered, and not with success: a fault of ours that repeating will not cure
_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_LINGER: Final = 2.0  # seconds an idle connection is kept


class Connection(Protocol):
    """What is needed of ``ttrpc.Client``."""

    def call(
        self,
        service: str,
        method: str,
        request: Message,
        response_class: type[empty_pb2.Empty],
        *,
        timeout: float | None,
    ) -> Message: ...

    def close(self) -> None: ...


class _Queued(NamedTuple):
    topic: str
    request: event_service_pb2.ForwardRequest


class Publisher:
    """Owns a thread while there is something to deliver or a connection to keep."""

    def __init__(
        self,
        address: str,
        namespace: str,
        log: Callable[[str], None],
        *,
        connect: Callable[[str], Connection] | None = None,
        backoff: tuple[float, ...] = _BACKOFF,
    ) -> None:
        self._address = address
        self._namespace = namespace
        self._log = log
        self._connect = connect or _connect
        self._backoff = backoff
        self._changed = threading.Condition()
        self._queue: collections.deque[_Queued] = collections.deque()
        self._running = False
        self._closed = False
        self.dropped = 0
        """Events lost because the queue was full or containerd refused them."""

    def publish(self, topic: str, event: Message) -> None:
        """Queues an event; the type URL is the message's full name. Never blocks."""
        self.publish_raw(topic, event.DESCRIPTOR.full_name, event.SerializeToString())

    def publish_raw(self, topic: str, type_url: str, payload: bytes) -> None:
        """Queues an event of any type. Never blocks."""
        if not self._address:
            return
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        envelope = types_pb2.Envelope(
            timestamp=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos),
            namespace=self._namespace,
            topic=topic,
            event=any_pb2.Any(type_url=type_url, value=payload),
        )
        with self._changed:
            if self._closed:
                return
            self._make_room()
            self._queue.append(_Queued(topic, event_service_pb2.ForwardRequest(envelope=envelope)))
            if not self._running:
                self._running = True
                threading.Thread(target=self._deliver, name="events", daemon=True).start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits until everything is delivered; ``False`` when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, timeout)

    def close(self) -> None:
        """Forgets what is queued."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _make_room(self) -> None:
        if len(self._queue) < MAX_QUEUED:
            return
        # Not the head: it may be under way.
        victim = next((i for i, item in enumerate(self._queue) if i and item.topic not in KEPT_TOPICS), 1)
        del self._queue[victim]
        self.dropped += 1

    def _deliver(self) -> None:
        """The thread: until the queue has been empty for a while."""
        connection: Connection | None = None
        failures = refusals = 0
        while (head := self._head()) is not None:
            try:
                connection = connection or self._connect(self._address)
                connection.call(SERVICE, "Forward", head.request, empty_pb2.Empty, timeout=FORWARD_TIMEOUT)
            except Exception as error:  # noqa: BLE001  # an event is never lost to an error of ours
                refused = connection is not None and _is_refusal(error, head.topic)
                refusals += refused
                if not refused or refusals < _REFUSALS:
                    connection = self._drop(connection)
                    self._pause(self._backoff[min(failures, len(self._backoff) - 1)])
                    failures += 1
                    continue
                self._log(f"containerd refused an event on {head.topic}: {error}")
                self.dropped += 1
            failures = refusals = 0
            self._done(head)
        self._drop(connection)

    def _head(self) -> _Queued | None:
        with self._changed:
            if not self._queue and not self._closed:
                self._changed.wait(_LINGER)
            if not self._queue:
                self._running = False
                return None
            return self._queue[0]

    def _done(self, head: _Queued) -> None:
        with self._changed:
            if self._queue and self._queue[0] is head:
                self._queue.popleft()
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    @staticmethod
    def _drop(connection: Connection | None) -> None:
        if connection is not None:
            connection.close()


def _is_refusal(error: Exception, topic: str) -> bool:
    """Whether containerd saw the event and will not have it, so that repeating is of no use."""
    if not isinstance(error, ttrpc.TtrpcError) or error.code in _TRANSPORT:
        return False
    # This may be a shortage on our own side. An exit is worth waiting for; it is never too large.
    return not (error.code == ttrpc.Status.RESOURCE_EXHAUSTED and topic in KEPT_TOPICS)


_TRANSPORT: Final = frozenset({ttrpc.Status.UNAVAILABLE, ttrpc.Status.DEADLINE_EXCEEDED, ttrpc.Status.CANCELLED})
"""Codes that say that containerd may never have seen the event."""


def _connect(address: str) -> Connection:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(FORWARD_TIMEOUT)
        connection.connect(address.removeprefix("unix://"))
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return ttrpc.Client(connection)
