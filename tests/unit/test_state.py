"""The table of moves: every state has its row, and every way ends."""

import pytest

from moorage.events import Cause, Phase
from moorage.state import (
    ACCEPTED,
    CLOSED,
    DETACHED,
    HANDLER,
    LINGERING,
    NEXT,
    NOBODY_LISTENS,
    PHASES,
    PROXY,
    QUEUED,
    TLS,
    WAITING,
    State,
)


def test_names_are_the_states_in_their_order() -> None:
    assert list(State) == [ACCEPTED, PROXY, TLS, WAITING, QUEUED, HANDLER, LINGERING, DETACHED, CLOSED]


def test_table_has_a_row_for_each_state() -> None:
    assert set(NEXT) == set(State)


@pytest.mark.parametrize("state", State)
def test_way_from_each_state_comes_to_an_end(state: State) -> None:
    reached, todo = {state}, [state]
    while todo:
        for follower in NEXT[todo.pop()] - reached:
            reached.add(follower)
            todo.append(follower)
    assert any(not NEXT[one] for one in reached)


@pytest.mark.parametrize("state", State)
def test_connection_can_be_closed_unless_it_has_gone(state: State) -> None:
    assert (CLOSED in NEXT[state]) == (state not in (CLOSED, DETACHED))


def test_only_a_handler_can_take_the_socket_away() -> None:
    assert [state for state in State if DETACHED in NEXT[state]] == [HANDLER]


def test_phase_before_the_handler_is_told_by_the_state() -> None:
    assert PHASES == {
        ACCEPTED: Phase.ACCEPTED,
        PROXY: Phase.PROXY,
        TLS: Phase.TLS,
        WAITING: Phase.WAITING,
        QUEUED: Phase.WAITING,
    }


def test_setup_goes_forward_only() -> None:
    assert PROXY not in NEXT[TLS]
    assert not {PROXY, TLS} & NEXT[WAITING]
    assert HANDLER not in NEXT[PROXY] | NEXT[TLS]


def test_nobody_listens_after_ends_that_the_peer_made() -> None:
    assert Cause.PEER_CLOSED in NOBODY_LISTENS


def test_nobody_listens_who_was_told_nothing_yet() -> None:
    assert {Cause.DENIED, Cause.PROXY_ERROR, Cause.SETUP_DEADLINE} <= NOBODY_LISTENS


def test_reply_is_saved_after_ends_that_come_with_one() -> None:
    assert Cause.TLS_ERROR not in NOBODY_LISTENS
    assert Cause.HANDLER_DONE not in NOBODY_LISTENS
