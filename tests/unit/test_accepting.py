"""Accepting: every state of an acceptor has its row, and every way leads to the end."""

import pytest

from moorage.accepting import ACCEPTING, MOVES, State


def test_table_has_a_row_for_each_state() -> None:
    assert set(MOVES) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state is not State.STOPPED])
def test_every_state_can_be_stopped(state: State) -> None:
    assert State.STOPPED in MOVES[state]


def test_nothing_follows_the_end() -> None:
    assert MOVES[State.STOPPED] == frozenset()


@pytest.mark.parametrize("state", [state for state in State if state in ACCEPTING])
def test_whoever_accepts_can_be_suspended(state: State) -> None:
    assert State.SUSPENDED in MOVES[state]
