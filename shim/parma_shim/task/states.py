# SPDX-License-Identifier: Apache-2.0
"""The life of a process, of a container's first one and of an exec alike: a table, and nothing else.

::

                     start          started            pause           paused
    CREATING --> CREATED --> STARTING --> RUNNING <--> PAUSING --> PAUSED
       |created    |  ^         |           |  ^ pause_failed        |  |
       |           |  |         |           |  +------- resume ------+  |
       |           |  |         |           |                           |
       |           |  |         |start_failed, exit                     |
       |           |exit        v           |exit                       |exit
       |           +-------> STOPPED <------+-----(exit: PAUSING)-------+
       |           |            |
       |     delete|            |delete
       |           v            v
       |failed   DELETING <-----+
       |           |deleted   (an exit while DELETING is not news: nothing waits for it any more)
       v           v
      DELETED <----+

An exec process begins in CREATED: ``Exec`` reserves its id and asks nothing of the guest.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from parma_shim.api import process_pb2
from parma_wire.errors import FailedPrecondition


class State(Enum):
    """Where a process is in its life."""

    CREATING = "being created"
    CREATED = "created"
    STARTING = "being started"
    RUNNING = "running"
    PAUSING = "being paused"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETING = "being deleted"
    DELETED = "deleted"


class Event(Enum):
    """What happens to a process."""

    CREATED = "created"
    FAILED = "failed"
    START = "start"
    STARTED = "started"
    START_FAILED = "start_failed"
    PAUSE = "pause"
    PAUSED = "paused"
    PAUSE_FAILED = "pause_failed"
    RESUME = "resume"
    EXIT = "exit"
    DELETE = "delete"
    DELETED = "deleted"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.CREATING, Event.CREATED): State.CREATED,
    (State.CREATING, Event.FAILED): State.DELETED,
    (State.CREATED, Event.START): State.STARTING,
    (State.CREATED, Event.EXIT): State.STOPPED,
    (State.CREATED, Event.DELETE): State.DELETING,
    (State.STARTING, Event.STARTED): State.RUNNING,
    (State.STARTING, Event.START_FAILED): State.STOPPED,
    (State.STARTING, Event.EXIT): State.STOPPED,
    (State.RUNNING, Event.PAUSE): State.PAUSING,
    (State.RUNNING, Event.EXIT): State.STOPPED,
    (State.PAUSING, Event.PAUSED): State.PAUSED,
    (State.PAUSING, Event.PAUSE_FAILED): State.RUNNING,
    (State.PAUSING, Event.EXIT): State.STOPPED,
    (State.PAUSED, Event.RESUME): State.RUNNING,
    (State.PAUSED, Event.EXIT): State.STOPPED,
    (State.STOPPED, Event.DELETE): State.DELETING,
    (State.DELETING, Event.EXIT): State.DELETING,
    (State.DELETING, Event.DELETED): State.DELETED,
}

ALIVE: Final = frozenset({State.CREATED, State.STARTING, State.RUNNING, State.PAUSING, State.PAUSED})
"""States from which an exit is still to come, and is reported."""

ENDED: Final = frozenset({State.STOPPED, State.DELETING, State.DELETED})
"""States in which ``Wait`` has its answer."""

STATUS: Final[dict[State, int]] = {
    State.CREATING: process_pb2.CREATED,
    State.CREATED: process_pb2.CREATED,
    State.STARTING: process_pb2.CREATED,
    State.RUNNING: process_pb2.RUNNING,
    State.PAUSING: process_pb2.PAUSING,
    State.PAUSED: process_pb2.PAUSED,
    State.STOPPED: process_pb2.STOPPED,
    State.DELETING: process_pb2.STOPPED,
    State.DELETED: process_pb2.STOPPED,
}
"""What containerd is told."""


def after(state: State, event: Event, what: str = "the process") -> State:
    """The next state.

    Raises:
        FailedPrecondition: the event makes no sense in this state; ``what`` names the process in the message.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = " or ".join(sorted(one.value for one, other in TRANSITIONS if other is event))
        raise FailedPrecondition(f"{what} is {state.value}", expected=possible) from None
