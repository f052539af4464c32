"""Pace: how fast clients are accepted, all together.

Owns      what becomes of a client who comes too early: he waits in the backlog, is refused, or is only looked at.
Promises  a client counts when he comes in: who is turned away by the door, or finds no place, leaves his turn to others.
Refuses   to wait: it says how long, and the acceptor does.
Why       where clients wait, their turn is taken before `accept`, since a backlog costs nothing; where they are
          refused, or only looked at, after it, since only then it is known who they are.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from .deadline import Clock, monotonic
from .events import Address, Cause, Events, RefusalObserved

T = TypeVar("T")


class Rate(Protocol):
    """How many may come in a second; see rates."""

    def take(self, now: float, /) -> float: ...
    def put_back(self) -> None: ...


class Pace:
    """One for all acceptors of a server; called in the thread that turns the Watch.

    waits     clients wait in the backlog until the next one is due
    observes  all come in, and an event says who would not have
    """

    def __init__(
        self, rate: Rate, events: Events, *, waits: bool, observes: bool = False, clock: Clock = monotonic
    ) -> None:
        self.waits = waits and not observes
        #: seconds until the next one is due; above 0 only when a turn was asked for last, and not to be had
        self.delay = 0.0
        self._rate = rate
        self._events = events
        self._observes = observes
        self._clock = clock
        self._has_turn = False

    def turn_with(self, take: Callable[[], T | None]) -> T | None:
        """What `take` gives, which may be nothing, if the next one is due; else nothing, and `delay` says when."""
        if not self._take_turn():
            return None
        taken = take()
        if taken is None:
            self.put_back()
        return taken

    def refuses(self, addr: Address) -> bool:
        """Whether this client, who was accepted, comes too early."""
        if self.waits or self._take_turn():
            return False
        self.delay = 0.0  # nobody waits
        if self._observes and RefusalObserved in self._events.wanted:
            self._events.emit(RefusalObserved(addr, Cause.REFUSED_RATE))
        return not self._observes

    def put_back(self) -> None:
        """He whose turn was taken last has not come in after all; does nothing when there was none to be had."""
        if self._has_turn:
            self._has_turn = False
            self._rate.put_back()

    def nobody_came(self) -> None:
        """Accept found nobody: a turn that was taken before it is for the next one."""
        if self.waits:
            self.put_back()

    def _take_turn(self) -> bool:
        self.delay = self._rate.take(self._clock())
        self._has_turn = not self.delay
        return self._has_turn
