"""Spread: which worker takes the clients that wait.

Owns      the answer of one worker to "how many of them are for me".
Promises  the worker with the fewest connections never steps aside; one that has many more does, for one pause of
          its acceptor, and never twice in a row; whoever is asked again takes what is left.
Refuses   to speak with other workers, or to wait: it reads the scoreboard.
Why       `epoll` wakes the worker that waited last first, and that is the one that has just served: 200 slow
          arrivals over four workers went 74/90/34/2 (`poll`: 51/49/49/51), and a worker that is new beside
          three old ones would stay nearly empty.
How       a worker that steps aside says in its row that it is not accepting until it is asked again, so that
          two never leave the same clients to each other.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Protocol

from ..deadline import Clock, monotonic

#: so many connections more than the emptiest are no reason to step aside, and as many more as chance alone makes
#: of them: where clients come at random, the numbers of two workers differ by about the root of one
SLACK = 4
#: a worker that has not beaten for so long takes nobody: it beats each second
FRESH_SECONDS = 3.0
#: for so long a look at the other rows holds good; at 20,000 connections a second these are 40 of them
LOOK_SECONDS = 0.002
#: taken to be waiting where the kernel does not tell; one accept in vain (5 us) finds out
UNTOLD = 4


class Row(Protocol):
    """The row of a worker; see scoreboard."""

    @property
    def index(self) -> int: ...
    @property
    def heartbeat(self) -> float: ...
    def get(self, name: str, /) -> int: ...
    def set(self, name: str, value: int, /) -> None: ...


class Scoreboard(Protocol):
    """All rows in use; see scoreboard."""

    def rows(self) -> Sequence[Row]: ...


class Spread:
    """Asked by the acceptors of one worker, in the thread that turns the watch."""

    def __init__(self, scoreboard: Scoreboard, row: Row, clock: Clock = monotonic) -> None:
        self._rows: Callable[[], Sequence[Row]] = scoreboard.rows
        self._row = row
        self._clock = clock
        self._bound = 0  # with more connections than this, we step aside
        self._workers = 1  # who share what waits, ourselves included
        self._look_again = float("-inf")

    def share(self, waiting: int | None) -> int:
        """How many of those who wait to take now (None: it is not known how many do).

        0 means: none, step aside for a pause, then ask again; where nobody waits it means nothing.
        """
        row = self._row
        was_accepting = row.get("accepting")
        if not was_accepting:
            row.set("accepting", 1)
        if waiting == 0:
            return 0
        count = UNTOLD if waiting is None else waiting
        if not was_accepting:  # we are back, and the others had their time
            return count
        if self._clock() >= self._look_again:
            self._look()
        if row.get("open") > self._bound:
            self._look()  # what is old must not make all of us step aside at once
            if row.get("open") > self._bound:
                row.set("accepting", 0)
                return 0
        return -(-count // self._workers)

    def _look(self) -> None:
        now = self._clock()
        others = [
            row.get("open")
            for row in self._rows()
            if row.index != self._row.index and row.get("accepting") and now - row.heartbeat < FRESH_SECONDS
        ]
        least = min(others, default=None)
        self._bound = 1 << 62 if least is None else least + SLACK + isqrt(max(least, 0))
        self._workers = 1 + len(others)
        self._look_again = now + LOOK_SECONDS
