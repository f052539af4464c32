"""Timers: a coarse wheel of calls to be made at a moment.

Owns      the timers of one loop, in slots of 1/32 of a second, and of 1/1024 for the few that ask for it.
Promises  never early, at most one slot late, save when more are due than can be called at once; setting,
          cancelling and asking for the next one cost the same however many there are; `cancel` may be called
          from any thread.
Refuses   to be set from two threads: `call_at` and `run_due` belong to the loop's thread.
Why       a deadline is set to be cancelled: a connection that lives a millisecond has an idle deadline
          in a minute, and a heap of those would hold a million dead entries (curio, "A Discussion About
          Time").
"""

import heapq
from collections.abc import Callable

from .deadline import Clock

#: in which keys count
SLOTS_PER_SECOND = 1024
#: so many of them are one slot for a deadline, so that many deadlines are one wake-up
COARSE = 32
#: calls made in one go: a slot may hold the deadlines of thousands who came together, and others want their turn
AT_ONCE = 16


class Timer:
    """One call at one moment."""

    __slots__ = ("_slot", "call")

    def __init__(self, call: Callable[[], object], slot: "set[Timer]") -> None:
        self.call = call
        self._slot = slot
        slot.add(self)

    def cancel(self) -> None:
        """Make the call never happen; after it happened this does nothing."""
        self._slot.discard(self)


class Wheel:
    """The timers of one loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[int, set[Timer]] = {}
        self._keys: list[int] = []  # a heap of the keys of `_slots`

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call at `when`, in seconds of the clock, or up to 1/32 of a second later."""
        return self._put((int(when * (SLOTS_PER_SECOND // COARSE)) + 1) * COARSE, call)

    def call_sharply_at(self, when: float, call: Callable[[], object]) -> Timer:
        """As `call_at`, at most a millisecond late; for pauses shorter than a slot."""
        return self._put(int(when * SLOTS_PER_SECOND) + 1, call)

    def _put(self, key: int, call: Callable[[], object]) -> Timer:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = set()
            heapq.heappush(self._keys, key)
        return Timer(call, slot)

    def delay(self) -> float | None:
        """Seconds until the next timer is due, 0.0 when one is, None when there is none."""
        while self._keys:
            key = self._keys[0]
            if self._slots[key]:
                return max(0.0, key / SLOTS_PER_SECOND - self._clock())
            self._drop_first()  # all its timers were cancelled
        return None

    def run_due(self) -> None:
        """Make the calls that are due, `AT_ONCE` at most: for the others `delay` is 0.0."""
        if not self._keys:
            return
        now = self._clock() * SLOTS_PER_SECOND
        for _ in range(AT_ONCE):
            while self._keys and self._keys[0] <= now and not self._slots[self._keys[0]]:
                self._drop_first()
            if not self._keys or self._keys[0] > now:
                return
            try:
                timer = self._slots[self._keys[0]].pop()
            except KeyError:  # cancelled just now, by another thread
                continue
            timer.call()

    def _drop_first(self) -> set[Timer]:
        return self._slots.pop(heapq.heappop(self._keys))
