"""Deadline: one timeout across many steps, and the clock behind a seam.

Owns      the choice of clock for the whole package: monotonic seconds, as a float.
Promises  a step that starts late gets what is left, never the whole timeout again.
Refuses   negative remainders: `remaining()` is never below zero.
Why       passing "timeout" from call to call gives every step the full time, and a slow peer
          many times the limit the operator wrote (websockets' `Deadline` is the example followed).
"""

from collections.abc import Callable
from time import monotonic

__all__ = ["Clock", "Deadline", "monotonic", "soonest"]

Clock = Callable[[], float]


class Deadline:
    """A point in time that many steps share.

    `seconds` is the time from now, or None for no deadline at all.
    """

    __slots__ = ("_clock", "at")

    def __init__(self, seconds: float | None, clock: Clock = monotonic) -> None:
        self._clock = clock
        #: the moment, in seconds of the clock; None means never
        self.at = None if seconds is None else clock() + seconds

    def remaining(self) -> float | None:
        """Seconds left, 0.0 when due, None when there is no deadline."""
        return None if self.at is None else max(0.0, self.at - self._clock())

    def is_due(self) -> bool:
        """Whether the moment has passed."""
        return self.at is not None and self._clock() >= self.at


def soonest(*moments: float | None) -> float | None:
    """The earliest of several moments, of which None means never."""
    earliest = None
    for moment in moments:
        if moment is not None and (earliest is None or moment < earliest):
            earliest = moment
    return earliest
