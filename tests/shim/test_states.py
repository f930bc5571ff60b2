# SPDX-License-Identifier: Apache-2.0
"""The table of a process's life, and that its diagram says the same."""

from __future__ import annotations

import itertools

import pytest

from parma_shim.task import states
from parma_shim.task.states import ALIVE, ENDED, STATUS, TRANSITIONS, Event, State
from parma_wire.errors import FailedPrecondition


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_of_state_and_event_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert states.after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(FailedPrecondition, match=state.value):
            states.after(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.CREATING}
    while new := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= new
    assert reached == set(State)
    assert {before for before, _ in TRANSITIONS} == set(State) - {State.DELETED}


def test_an_exit_is_possible_exactly_while_alive_or_being_deleted() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.EXIT} == ALIVE | {State.DELETING}


def test_every_state_is_creating_alive_or_ended() -> None:
    assert {State.CREATING} | ALIVE | ENDED == set(State)
    assert not ALIVE & ENDED


def test_an_ended_process_is_shown_as_stopped() -> None:
    assert {STATUS[state] for state in ENDED} == {3}
    assert {STATUS[state] for state in State} == {1, 2, 3, 4, 5}


def test_the_diagram_names_every_state_and_event() -> None:
    diagram = states.__doc__ or ""
    assert [state.name for state in State if state.name not in diagram] == []
    assert [event.value for event in Event if event.value not in diagram] == []
