"""Parking: how anything waits, be it a fiber or a thread, and what belongs to each of them.

Owns      which loop a thread turns, the parkers that every portable lock is built on, and the storage of
          `moorage.local`.
Promises  a parker that is released before it waits does not wait; `release` may be called from any thread,
          fiber or signal handler; a wait that is interrupted by an exception leaves nothing behind; what is
          stored for a fiber or a thread dies with it.
Refuses   to know how a loop works: it uses the few methods of `Loop` below.  To poll.
Why       `threading` waits by blocking the thread, and a thread that turns a loop has all its fibers in it:
          the one that would release the lock never runs.
"""

import threading
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ..deadline import monotonic

#: the attribute of a greenlet that holds what is stored for it
_STORED = "stored"  # the slot of a Fiber, which the loop empties when its call has ended

Storage = WeakKeyDictionary[Any, dict[str, Any]]


class Loop(Protocol):
    """What is needed of the loop that a thread turns."""

    @property
    def thread_id(self) -> int: ...
    @property
    def asleep(self) -> bool: ...
    def in_fiber(self) -> bool: ...
    def park(self, until: float | None = None) -> None: ...
    def ready(self, fiber: Any) -> None: ...
    def call_soon(self, call: Callable[[], object]) -> None: ...
    def served(self) -> Any: ...


class Parker(Protocol):
    """One wait of one fiber or thread, which made it by `make_parker`."""

    def wait(self, timeout: float | None) -> bool:
        """Wait for `release`; False when the time was over before."""
        ...

    def release(self) -> None:
        """End the wait, or make it end at once when it begins; once."""
        ...


class _Here(threading.local):
    """What a thread knows of itself."""

    loop: Loop | None = None
    #: the greenlet that runs; set with the loop, since greenlet is imported only where there is one
    current: Callable[[], Any]
    storage: Storage | None = None


_here = _Here()


def enter(loop: Loop) -> None:
    """From now on this thread turns this loop."""
    from greenlet import getcurrent

    _here.current = getcurrent
    _here.loop = loop


def leave() -> None:
    """This thread turns no loop any more."""
    _here.loop = None


def this_loop() -> Loop | None:
    """The loop whose fiber is the caller; None in a thread, and in the greenlet that turns a loop."""
    loop = _here.loop
    return loop if loop is not None and loop.in_fiber() else None


def strand() -> object:
    """Who the caller is: its fiber, or the number of its thread."""
    loop = _here.loop
    return _here.current() if loop is not None and loop.in_fiber() else get_ident()


def make_parker() -> Parker:
    """For one wait of the calling fiber or thread."""
    loop = this_loop()
    return ThreadParker() if loop is None else FiberParker(loop, _here.current())


def storage() -> Storage:
    """What is stored for the calling fiber or thread."""
    if this_loop() is None:
        if _here.storage is None:
            _here.storage = WeakKeyDictionary()
        return _here.storage
    fiber = _here.current()
    stored: Storage | None = getattr(fiber, _STORED, None)
    if stored is None:
        stored = WeakKeyDictionary()
        setattr(fiber, _STORED, stored)
    return stored


class ThreadParker:
    """Blocks the thread."""

    __slots__ = ("_lock", "_released")

    def __init__(self) -> None:
        self._released = False
        self._lock = allocate_lock()  # guards nothing: held until the release
        self._lock.acquire()

    def wait(self, timeout: float | None) -> bool:
        return self._released or self._lock.acquire(True, -1 if timeout is None else max(0.0, timeout))

    def release(self) -> None:
        self._released = True
        self._lock.release()


class FiberParker:
    """Parks the fiber, and lets the others of its loop run."""

    __slots__ = ("_fiber", "_is_waiting", "_loop", "_released")

    def __init__(self, loop: Loop, fiber: Any) -> None:
        self._loop = loop
        self._fiber = fiber
        self._released = False
        self._is_waiting = False  # a fiber that waits for something else is not disturbed

    def wait(self, timeout: float | None) -> bool:
        until = None if timeout is None else monotonic() + timeout
        self._is_waiting = True  # before the look: a signal handler may release in between
        try:
            while not self._released:
                if until is not None and monotonic() >= until:
                    return False
                self._loop.park(until)
            return True
        finally:
            self._is_waiting = False

    def release(self) -> None:
        self._released = True
        loop = self._loop
        # In its own thread the loop sleeps only when this is a signal handler: then it has to be woken, too.
        if get_ident() == loop.thread_id and not loop.asleep:
            self._wake()
        else:
            loop.call_soon(self._wake)

    def _wake(self) -> None:
        if self._is_waiting:
            self._loop.ready(self._fiber)
