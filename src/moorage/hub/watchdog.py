"""Watchdog: a thread that finds out who holds the hub.

Owns      one daemon thread, the count of holds, the list of places that were told of.
Promises  a fiber, or `main`, that lets nobody else run for `limit` seconds is counted, each time, and told of once
          per place: with its whole duration when it ends, or with "so far" when it lasts longer than `SO_FAR`.
          It sleeps while the hub does: an idle process is not woken.  It looks twice in `limit`, so a hold is
          found for certain from one and a half times `limit` on, and its duration is right to half of it.
Refuses   to interrupt anybody, and to know what becomes of a report: `report` is called in its thread.
Why       a stalled hub looks like a slow network from outside; only a second thread sees the line that stalls it.
          An alarm signal would need the main thread, which is the program's.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..deadline import Clock, monotonic
from ..events import HandlerHeldHub
from .hold import advice, blamed

LIMIT = 0.1  # asyncio's slow_callback_duration, too
SO_FAR = 1.0  # a hold this long is told of before it ends: it may never
PLACES = 1000  # told of and remembered; a program has a few, generated code any number
JOIN_SECONDS = 2.0  # a report may wait for a lock of the thread that calls `stop`


class Loop(Protocol):
    """What is seen of a loop."""

    #: when it is not None, the loop sets it to None and releases it, after it has reset `asleep`
    bell: Any

    @property
    def switches(self) -> int:
        """Changes with each switch and, before `asleep` is set, with each look at what is ready.

        A fiber that is alone waits and goes on without any switch, and does not hold the hub.
        """
        ...

    @property
    def asleep(self) -> bool:
        """It waits for the kernel."""
        ...

    @property
    def thread_id(self) -> int:
        """The thread that turns it."""
        ...


class Bell:
    """Wakes the watchdog; a ring before the wait counts, and many rings are one."""

    def __init__(self) -> None:
        # Guards nothing: held while nobody has rung.
        self._silent = threading.Lock()
        self._silent.acquire()

    def release(self) -> None:
        """Ring, from any thread; named for the lock that the loop takes it for."""
        try:
            self._silent.release()
        except RuntimeError:  # somebody else has rung
            pass

    def wait(self, seconds: float = -1) -> None:
        """Until the next ring, or for at most so many seconds."""
        self._silent.acquire(timeout=seconds)


class Watchdog:
    """`start()` begins to watch, `stop()` ends it; both may be called twice."""

    def __init__(
        self, loop: Loop, report: Callable[[HandlerHeldHub], None], limit: float = LIMIT, clock: Clock = monotonic
    ) -> None:
        self._loop = loop
        self._report = report
        self._limit = limit
        self._clock = clock
        #: holds so far, those at places that are known included
        self.count = 0
        self._told: dict[tuple[str, int], None] = {}  # in the order of the telling
        self._bell: Bell | None = None  # of the run that is wanted
        self._thread: threading.Thread | None = None
        self._forget()

    def start(self) -> None:
        """Watch; the loop must be turned from now on, or be asleep."""
        if self._bell is None:
            self._forget()
            self._bell = bell = Bell()
            self._thread = threading.Thread(target=self._run, args=(bell,), name="moorage-watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching; a hold that was found and not told of yet is told of now."""
        bell, self._bell = self._bell, None
        if bell is None or self._thread is None:
            return
        bell.release()
        if self._thread is not threading.current_thread():  # a subscriber may stop the server
            self._thread.join(JOIN_SECONDS)

    # In its thread

    def _run(self, bell: Bell) -> None:
        while self._bell is bell:
            if self._look():
                self._sleep(bell)
                self._forget()  # and look at once: who woke the hub may hold it
            else:
                bell.wait(self._limit / 2)
        if self._untold is not None and self._since is not None:
            self._seconds = self._clock() - self._since
            self._tell(is_over=self._loop.asleep or self._loop.switches != self._seen)

    def _forget(self) -> None:
        self._seen = -1  # the switches at the last look
        self._since: float | None = None  # the first look that saw this number, and the hub at work
        self._seconds = 0.0  # of the hold
        self._is_counted = False
        self._untold: tuple[str, int, str, str] | None = None  # file, line, function, advice

    def _look(self) -> bool:
        """One look at the hub; whether it has done nothing since the last one, and is asleep."""
        now, switches, is_asleep = self._clock(), self._loop.switches, self._loop.asleep
        has_moved = switches != self._seen
        self._seen = switches
        if has_moved or is_asleep or self._since is None:
            self._end(now)
            self._since = None if is_asleep else now
        else:
            self._go_on(now - self._since)
        return is_asleep and not has_moved

    def _sleep(self, bell: Bell) -> None:
        """Wait until the loop has left its wait, or until `stop`."""
        self._loop.bell = bell
        if self._loop.asleep and self._loop.switches == self._seen:  # else it has left already, and may not ring
            bell.wait()
        self._loop.bell = None

    def _go_on(self, seconds: float) -> None:
        """Nobody else has run for so long."""
        if seconds < self._limit:
            return
        self._seconds = seconds
        if not self._is_counted:
            self._is_counted = True
            self._untold = self._find_place()
            self.count += 1
        if self._untold is not None and seconds >= SO_FAR:
            self._tell(is_over=False)

    def _end(self, now: float) -> None:
        if self._untold is not None and self._since is not None:
            self._seconds = now - self._since
            self._tell(is_over=True)
        self._is_counted = False

    def _tell(self, is_over: bool) -> None:
        if self._untold is None:
            return
        (file, line, function, what), self._untold = self._untold, None
        self._told[file, line] = None
        if len(self._told) > PLACES:
            del self._told[next(iter(self._told))]
        self._report(HandlerHeldHub(file, line, function, self._seconds, is_over, what))

    def _find_place(self) -> tuple[str, int, str, str] | None:
        """File, line, function and advice of a new place; None where it is known, or over before it was found."""
        innermost = sys._current_frames().get(self._loop.thread_id)
        if innermost is None:
            return None
        frame = blamed(innermost)
        file, line = frame.f_code.co_filename, frame.f_lineno
        if (file, line) in self._told:
            return None
        place = (file, line, frame.f_code.co_qualname, advice(innermost, frame))
        return place if self._loop.switches == self._seen and not self._loop.asleep else None
