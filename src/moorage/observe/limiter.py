"""Limiter: lets a kind of log line through a few times, then counts it.

Owns      how many lines of one kind may be logged in a window, and how many were left out.
Promises  nothing is lost without its count; ask `overdue` before each line, since no timer runs here:
          an idle process sleeps.
Why       asyncio logged each failed accept, and filled a disk with 107 GB (python/asyncio).
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..deadline import monotonic

Kind = TypeVar("Kind", bound=Hashable)

#: enough to see what is going on, little enough to read
BURST = 10
WINDOW = 10.0


@dataclass
class _Window:
    begun: float
    lines: int = 0
    left_out: int = 0


class Limiter(Generic[Kind]):
    """At most `burst` lines of one kind in `window` seconds."""

    def __init__(self, burst: int = BURST, window: float = WINDOW, clock: Callable[[], float] = monotonic) -> None:
        self._burst, self._seconds, self._clock = burst, window, clock
        # Guards `_windows`.  Re-entrant, because a signal handler may log while its thread does.
        self._lock = threading.RLock()
        self._windows: dict[Kind, _Window] = {}

    def admit(self, kind: Kind) -> bool:
        """Whether a line of this kind may be logged now; a line that may not is counted."""
        with self._lock:
            window = self._windows.setdefault(kind, _Window(self._clock()))
            if window.lines < self._burst:
                window.lines += 1
                return True
            window.left_out += 1
            return False

    def overdue(self, everything: bool = False) -> list[tuple[Kind, int]]:
        """The kinds whose window is over, with the lines left out in it; their next window is a new one."""
        if not self._windows:
            return []
        with self._lock:
            now = self._clock()
            over = [k for k, w in self._windows.items() if everything or now - w.begun >= self._seconds]
            windows = [(kind, self._windows.pop(kind)) for kind in over]
        return [(kind, window.left_out) for kind, window in windows if window.left_out]
