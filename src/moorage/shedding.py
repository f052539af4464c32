"""Shedding: room for new clients, made by closing those who were idle for longest.

Owns      the choice of whom to close, and how often it is made.
Promises  only who was quiet for `idle` seconds is closed, as many as are waited for and no more, the longest idle
          first; at most `LOOKS` looks a second, which take at most a tenth of the time.
Refuses   to wait until they are gone: their places come free as those of any who leave.
Note      each worker looks at its own guests alone: of several, each may close one for the same client.
"""

from collections.abc import Iterable
from heapq import nsmallest
from typing import Protocol

from .deadline import Clock, monotonic
from .events import Cause

#: a second, since each of them asks every guest, and the kernel about most of them
LOOKS = 10
#: of all time is spent with looking
SHARE = 0.1
#: closed at one look: as many as are accepted in one go
AT_ONCE = 64


class Guest(Protocol):
    """What shedding needs of a connection."""

    id: int
    cause: Cause | None

    @property
    def has_left(self) -> bool: ...
    def quiet_since(self) -> float | None: ...
    def end(self, cause: Cause, /) -> None: ...


class Listener(Protocol):
    """Where clients wait; see listener."""

    def backlog_length(self) -> int | None: ...


class Shedding:
    """Asked in the thread that turns the Watch, when somebody waits and there is no place or descriptor."""

    def __init__(self, guests: Iterable[Guest], idle: float, clock: Clock = monotonic) -> None:
        self._guests = guests
        self._idle = idle
        self._clock = clock
        self._next_look = 0.0
        self._is_made = False
        #: the moment from which it is worth asking again
        self.again_at = 0.0

    def make_room(self, listener: Listener) -> bool:
        """Have a place come free for each who waits there, as far as somebody is idle; whether any will."""
        now = self._clock()
        if now >= self._next_look:
            self._look(_count_of(listener), now)
            took = self._clock() - now
            self._next_look = now + max(1 / LOOKS, took / SHARE)
            self.again_at = max(self.again_at, self._next_look)
        return self._is_made

    def _look(self, wanted: int, now: float) -> None:
        leaving, idle, next_idle = 0, [], now + self._idle
        for guest in self._guests:
            if guest.cause is Cause.SHED:
                leaving += 1
            elif not guest.has_left and (since := guest.quiet_since()) is not None:
                if since + self._idle <= now:
                    idle.append((since, guest.id, guest))
                else:
                    next_idle = min(next_idle, since + self._idle)
        chosen = nsmallest(min(wanted - leaving, AT_ONCE), idle)  # none where it is below 0
        for _, _, guest in chosen:
            guest.end(Cause.SHED)
        self._is_made = bool(leaving or chosen)
        self.again_at = now if self._is_made or idle else next_idle


def _count_of(listener: Listener) -> int:
    """How many wait; one where the kernel does not tell, since there are looks enough for the others."""
    try:
        return max(listener.backlog_length() or 1, 1)
    except OSError:  # accept will tell what is wrong
        return 1
