"""Accepting: whether a listener is waited for, and what may follow.

Owns      the states of an acceptor, and the table of moves.
Promises  data only: who moves is the acceptor.
"""

from enum import Enum


class State(Enum):
    """Whether the listener is waited for, and if not, what for."""

    NEW = "not started"
    OPEN = "clients are accepted"
    FULL = "no ticket is free"
    PAUSED = "no descriptor or memory is free"
    PACED = "the next client is not due yet"
    ASIDE = "a less busy worker is to take those who wait"
    SUSPENDED = "the operator wishes so"
    STOPPED = "no client is accepted any more"


MOVES: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.OPEN, State.SUSPENDED, State.STOPPED}),
    State.OPEN: frozenset({State.FULL, State.PAUSED, State.PACED, State.ASIDE, State.SUSPENDED, State.STOPPED}),
    State.FULL: frozenset({State.OPEN, State.SUSPENDED, State.STOPPED}),
    State.PAUSED: frozenset({State.OPEN, State.SUSPENDED, State.STOPPED}),
    State.PACED: frozenset({State.OPEN, State.SUSPENDED, State.STOPPED}),
    State.ASIDE: frozenset({State.OPEN, State.SUSPENDED, State.STOPPED}),
    State.SUSPENDED: frozenset({State.OPEN, State.STOPPED}),
    State.STOPPED: frozenset(),
}
ACCEPTING = frozenset(MOVES) - {State.NEW, State.SUSPENDED, State.STOPPED}
