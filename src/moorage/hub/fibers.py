"""Fibers: the greenlets of one loop, what they call, and how long they wait.

Owns      what a fiber does, and the timers that look at the deadlines of streams.
Promises  a call runs in a fiber of its own, and what it raises reaches nobody else; a deadline costs nothing
          per message: it is a number in the stream, and one timer looks at it when it could have passed.
Refuses   to run before `enter`.
"""

import math
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import GreenletExit, greenlet

from ..deadline import monotonic
from ..timers import Wheel
from ..twins import Crew
from .loop import WRITE

Call = Callable[..., object]


class Fiber(greenlet):
    """One greenlet, what it calls, and what `moorage.local` keeps for it."""

    __slots__ = ("argument", "call", "stored")

    call: Call | None
    argument: Any
    stored: Any


class Fibers(Crew):
    """A loop with all that does not happen for each message.

    call_soon  thread-safe: makes a call in `main`
    """

    def __init__(
        self,
        wheel: Wheel,
        calls: "deque[Callable[[], object]]",
        call_soon: Callable[[Callable[[], object]], None],
    ) -> None:
        super().__init__(wheel, calls)
        self._timers = wheel
        self.call_soon = call_soon
        self._body = self._live  # one bound method for all
        #: what the runner knows of the calling fiber: see `handler.served`
        self.served: Callable[[], Any] = lambda: None
        #: how many fibers exist
        self.fibers = 0

    @property
    def idle(self) -> int:
        """How many fibers have nothing to do."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """How many fibers are in a call, or about to begin one."""
        return len(self._busy)

    def busy_fibers(self) -> "list[Fiber]":
        """Those fibers."""
        return list(self._busy)

    def in_fiber(self) -> bool:
        """Whether the caller runs in one of its fibers."""
        return threading.get_ident() == self.thread_id and self._current() is not self.main

    def _hire(self) -> Fiber:
        fiber = Fiber(self._body, self.main)
        fiber.stored = None
        self.fibers += 1
        return fiber

    def park(self, until: float | None = None) -> None:
        """The calling fiber waits for `ready`, or for that moment; may return early without a reason."""
        timer = None if until is None else self._timers.call_at(until, partial(self.ready, self._current()))
        try:
            self.rest()
        finally:
            if timer is not None:
                timer.cancel()

    def throw(self, fiber: Any, error: BaseException) -> None:
        """Raise this in a fiber, at its wait, soon; one that has not begun its call never will.

        When it comes out of the call it is nobody's affair.
        """
        if fiber in self._busy:
            self._thrown[fiber] = self._stopped[fiber] = error
            self.ready(fiber)

    def retire(self) -> None:
        """In `main`: end the idle fibers."""
        while self._idle:
            self._idle.pop().throw(GreenletExit)

    def _live(self) -> None:
        """What a fiber does: one call after the other."""
        me: Fiber = self._current()
        try:
            while True:
                try:
                    if me.call is None or me in self._thrown:
                        pass
                    elif me.argument is None:
                        me.call()
                    else:  # no call may go through C: of its frame every waiting fiber would keep a copy
                        me.call(me.argument)
                except BaseException as error:
                    if error is not self._stopped.get(me):
                        self.error = error
                if not self._settle(me):
                    return
        finally:
            self.fibers -= 1

    # As a waiter

    def wait(self, stream: Any, mask: int, timeout: float | None) -> bool:
        """Whether the stream was ready in time; False without a reason too."""
        if not self.in_fiber() or (timeout is not None and timeout <= 0):
            return self.wait_outside(stream, mask, timeout)
        if mask == WRITE:
            if not stream._writable:
                stream._due_write = self._until(stream, timeout)
                try:
                    self.wait_writable(stream)
                finally:
                    stream._due_write = 0.0
            return bool(stream._writable)
        or_writable = bool(mask & WRITE)
        if not stream._readable and not (or_writable and stream._writable):
            stream._due_read = self._until(stream, timeout)
            try:
                if or_writable and stream._writer is None:  # else a writer waits, and sends what is to be sent
                    self.wait_writable(stream, True)
                else:
                    self.wait_readable(stream)
            finally:
                stream._due_read = 0.0
        return bool(stream._readable or (or_writable and stream._writable))

    def wait_outside(self, stream: Any, mask: int, timeout: float | None) -> bool:
        """As `wait`, for a caller that is no fiber (it blocks its thread), and for a wait without time."""
        poll = select.poll()
        poll.register(stream.fileno(), mask)
        is_ready = bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
        if is_ready and mask != WRITE:
            stream._readable = True
        if is_ready and mask & WRITE:
            stream._writable = True
        return is_ready

    def wake(self, stream: Any) -> None:
        """End the waits of this stream; from any thread."""
        if threading.get_ident() != self.thread_id:
            self.call_soon(partial(self.wake, stream))
            return
        for fiber in (stream._reader, stream._writer):
            if fiber is not None:
                self.ready(fiber)

    def _until(self, stream: Any, timeout: float | None) -> float:
        """The moment at which this wait ends, 0.0 for never; from then on a timer looks at it."""
        if timeout is None:
            return 0.0
        due = monotonic() + timeout
        look = stream._deadline_look
        if look is None or look.when > due:
            if look is not None:
                look.cancel()
            stream._deadline_look = _Look(self, stream, due)
        return due


class _Look:
    """The timer that looks at the deadlines of one stream."""

    __slots__ = ("_loop", "_stream", "_timer", "when")

    def __init__(self, loop: Fibers, stream: Any, when: float) -> None:
        self._loop = loop
        self._stream = stream
        self.when = when
        self._timer: Any = loop._timers.call_at(when, self._look)

    def cancel(self) -> None:
        self._timer.cancel()
        self._timer = None  # no cycle: it calls us

    def _look(self) -> None:
        stream, now, later = self._stream, monotonic(), math.inf
        stream._deadline_look = self._timer = None
        for due, fiber in ((stream._due_read, stream._reader), (stream._due_write, stream._writer)):
            if due and due <= now and fiber is not None:
                self._loop.ready(fiber)
            elif due:
                later = min(later, due)
        if later < math.inf:
            stream._deadline_look = _Look(self._loop, stream, later)
