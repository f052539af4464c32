"""Shortage: a time without descriptors or memory, as it is reported.

Owns      the two events of it, `AcceptPaused` and `AcceptResumed`, and how often they are said.
Promises  at most one `AcceptPaused` in `REPORT_SECONDS`, with the count of failures since the last;
          `AcceptResumed` once accept has worked for as long: a server at the edge does not report every
          descriptor that comes free.
Refuses   to pause anything: it only keeps the books of whoever does.
Why       one line for each failed accept filled a disk with 107 GB of log (asyncio); none at all leaves
          the operator to guess (socketserver spins silently).
"""

from collections.abc import Callable
from typing import Protocol

from .deadline import Clock, monotonic
from .events import AcceptPaused, AcceptResumed, Events

#: how long accept is left alone after such a failure (Ranch, trio and ThousandIsland: 100 ms)
PAUSE_SECONDS = 0.1
#: as often as an operator can read it
REPORT_SECONDS = 1.0


class Timer(Protocol):
    """A call to come; see watch."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """Who keeps the time for us; see watch."""

    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...


class Shortage:
    """Begins with the first failure and ends when accept has worked for `REPORT_SECONDS`."""

    def __init__(
        self, watch: Watch, events: Events, clock: Clock = monotonic, report_seconds: float = REPORT_SECONDS
    ) -> None:
        #: accept failed and has not worked since
        self.is_on = False
        self._watch = watch
        self._events = events
        self._clock = clock
        self._report_seconds = report_seconds
        self._since: float | None = None  # the first failure
        self._until = 0.0  # the last success
        self._reported = float("-inf")
        self._failures = 0  # since the last report
        self._calm: Timer | None = None

    def met(self, error: OSError) -> None:
        """Accept failed for want of something."""
        now = self._clock()
        self.forget()
        self.is_on = True
        if self._since is None:
            self._since = now
        self._failures += 1
        if now - self._reported >= self._report_seconds:
            if AcceptPaused in self._events.wanted:
                self._events.emit(AcceptPaused(error, PAUSE_SECONDS, self._failures))
            self._reported = now
            self._failures = 0

    def over(self) -> None:
        """Accept works; it will be believed if it lasts."""
        self.is_on = False
        self._until = self._clock()
        self._calm = self._watch.call_at(self._until + REPORT_SECONDS, self._end)

    def forget(self) -> None:
        """Do not report an end."""
        if self._calm is not None:
            self._calm.cancel()
            self._calm = None

    def _end(self) -> None:
        self._calm = None
        if self._since is not None and AcceptResumed in self._events.wanted:
            self._events.emit(AcceptResumed(self._until - self._since))
        self._since = None
        self._failures = 0
