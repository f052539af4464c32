"""Crew: the fibers of one loop, at work and idle.

Owns      which fibers are in a call, which wait for one, and what was raised in those that are to stop.
Promises  a call has a fiber of its own, which is used again; at most `KEPT` are idle.
Refuses   to make calls: what a fiber does is in fibers.
Why       this is the pure twin; `_native` has the one in C, chosen by `twins`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from .loop import Loop, Wheel

KEPT = 64  # idle fibers kept for the next call; a new one costs 8 us, an idle one 6 KiB


class Crew(Loop):
    """A loop, and the fibers that it was given."""

    def __init__(self, wheel: Wheel, calls: "deque[Callable[[], object]]") -> None:
        super().__init__(wheel, calls)
        self._busy: set[Any] = set()
        self._stopped: dict[Any, BaseException] = {}  # what was raised in it by `throw`
        self._idle: list[Any] = []

    def spawn(self, call: Callable[..., object], argument: Any = None) -> Any:
        """Call in a fiber, soon, with this argument unless it is None; returns the fiber."""
        fiber = self._idle.pop() if self._idle else self._hire()
        fiber.call = call
        fiber.argument = argument
        self._busy.add(fiber)
        self.ready(fiber)
        return fiber

    def _hire(self) -> Any:
        """A new fiber; a subclass makes it."""
        raise NotImplementedError

    def _settle(self, me: Any) -> bool:
        """The call of this fiber, the caller, is over: wait for its next one; False when it is not kept."""
        self._busy.discard(me)
        me.call = me.argument = me.stored = None
        if self._stopped:
            self._thrown.pop(me, None)
            self._stopped.pop(me, None)
        if len(self._idle) >= KEPT:
            return False
        self._idle.append(me)
        while me.call is None:
            self.rest()
        return True
