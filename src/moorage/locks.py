"""Locks that work under every runner: those of `threading` and `queue`, for fibers and threads alike.

Owns      Lock, RLock, Event, Condition and Queue.
Promises  exclusion and hand-over between fibers, between threads, and between the two; whoever came first is
          served first; a waiter that times out or is killed takes nothing with it, and what it was just
          handed goes on to the next; no polling; without contention nothing is allocated.
Refuses   a lock of `threading` in a Condition: it would stop the hub.
Why       under fibers `threading.RLock` does not exclude, since all of them are one thread; and a `Lock` that is
          held over a wait stops the hub for ever.

None of them has a lock inside.  Whether a waiter was served is decided by one atomic act: taking its parker
out of the list of those who wait.  Who serves takes it out first, and wakes it then; who gives up takes
itself out, and when it is not there any more it was served.
"""

import queue
from _thread import allocate_lock
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from .hub.parking import Parker, make_parker, strand

__all__ = ["Condition", "Event", "Lock", "Queue", "RLock"]

#: how often a killed waiter of a Condition tries to get its lock back: more than anybody kills it in earnest; a
#: bound, because a loop that is closed refuses every try
TRIES = 8

T = TypeVar("T")


class Lock:
    """As `threading.Lock`, for fibers and threads; handed over in the order of those who wait."""

    __slots__ = ("__weakref__", "_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = allocate_lock()  # held while ours is: never waited for, and the one atomic truth
        self._waiters: list[Parker] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or wait for it; False when it was not to be had in time."""
        if timeout != -1:
            _check_timeout(blocking, timeout)
        if self._lock.acquire(False):
            return True
        if not blocking:
            return False
        return self._wait(None if timeout == -1 else timeout)

    def release(self) -> None:
        """Give it to who waits longest, or free it; by anybody, as in `threading`."""
        if self._waiters:
            self._hand_over()
        else:
            self._lock.release()
            if self._waiters:  # somebody began to wait meanwhile
                self._hand_over_if_free()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self._lock.acquire(False) or self._wait(None)

    def __exit__(self, *_: object) -> None:
        self.release()

    def _wait(self, timeout: float | None) -> bool:
        parker = make_parker()
        self._waiters.append(parker)
        try:
            self._hand_over_if_free()  # who released it before may not have seen us
            if parker.wait(timeout):
                return True
        except BaseException:
            if not _has_left(self._waiters, parker):
                self.release()  # it was handed to us
            raise
        return not _has_left(self._waiters, parker)

    def _hand_over_if_free(self) -> None:
        if self._lock.acquire(False):
            self._hand_over()

    def _hand_over(self) -> None:
        """As its holder: it stays locked, and is the first waiter's."""
        while not _serve(self._waiters):
            self._lock.release()  # the last one gave up
            if not (self._waiters and self._lock.acquire(False)):
                return

    # What a Condition needs; the names are those of `threading`

    def _is_owned(self) -> bool:
        return self._lock.locked()

    def _release_save(self) -> object:
        self.release()
        return None

    def _acquire_restore(self, state: Any) -> None:
        self.acquire()


class RLock:
    """As `threading.RLock`; its owner is a fiber or a thread."""

    __slots__ = ("__weakref__", "_count", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, once more if it is the caller's; False when it was not to be had in time."""
        me = strand()
        if self._owner == me:
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner = me
        self._count = 1
        return True

    def release(self) -> None:
        """Give it back as often as it was taken."""
        if self._owner != strand():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._owner == strand()

    def _release_save(self) -> object:
        state = self._count, self._owner
        self._count, self._owner = 0, None
        self._lock.release()
        return state

    def _acquire_restore(self, state: Any) -> None:
        self._lock.acquire()
        self._count, self._owner = state


class Event:
    """As `threading.Event`; `set` may be called by a signal handler, too."""

    __slots__ = ("__weakref__", "_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[Parker] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait; from now on nobody waits."""
        self._is_set = True
        for _ in range(len(self._waiters)):
            _serve(self._waiters)

    def clear(self) -> None:
        """From now on one waits until the next `set`."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False when it was not in time."""
        if self._is_set:
            return True
        parker = make_parker()
        self._waiters.append(parker)
        try:
            is_set = self.is_set()  # by somebody who did not see us in the list
            if not is_set:
                parker.wait(timeout)
        finally:
            has_left = _has_left(self._waiters, parker)
        return is_set or not has_left


class Condition:
    """As `threading.Condition`, on a `moorage.Lock` or `RLock`; without one it makes an RLock."""

    __slots__ = ("__weakref__", "_lock", "_waiters")

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        if not isinstance(lock, Lock | RLock | None):
            raise TypeError(f"a Condition needs a moorage.Lock or moorage.RLock, not {lock!r}")
        self._lock = RLock() if lock is None else lock
        self._waiters: list[Parker] = []  # changed only by the holder of the lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Free the lock, wait to be notified, take the lock again; False when the time was over before."""
        self._check_owned("wait on")
        parker = make_parker()
        self._waiters.append(parker)
        state = self._lock._release_save()
        try:
            try:
                parker.wait(timeout)
            finally:
                self._take_back(state)
        except BaseException:
            if not _has_left(self._waiters, parker):
                _serve(self._waiters)  # notified, but it will not look at what for: let the next one
            raise
        return not _has_left(self._waiters, parker)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until the predicate is true; returns its last value."""
        until = None if timeout is None else monotonic() + timeout
        while not (result := predicate()):
            remaining = None if until is None else until - monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake this many of those who wait, the first ones first."""
        self._check_owned("notify on")
        for _ in range(min(n, len(self._waiters))):
            _serve(self._waiters)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.notify(len(self._waiters))

    def _check_owned(self, what: str) -> None:
        if not self._lock._is_owned():
            raise RuntimeError(f"cannot {what} un-acquired lock")

    def _take_back(self, state: object) -> None:
        """Acquire, although killed meanwhile: the caller's `with` is going to release."""
        killed: BaseException | None = None
        for _ in range(TRIES):
            try:
                self._lock._acquire_restore(state)
                break
            except BaseException as error:
                killed = error
        if killed is not None:
            raise killed


class Queue(queue.Queue[T]):
    """As `queue.Queue`, whose subclass it is, for fibers and threads."""

    # typed as `threading` has them by those who wrote queue.Queue, which only calls their methods
    mutex: Any
    not_empty: Any
    not_full: Any
    all_tasks_done: Any

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.mutex = Lock()
        self.not_empty = Condition(self.mutex)
        self.not_full = Condition(self.mutex)
        self.all_tasks_done = Condition(self.mutex)


def _serve(waiters: list[Parker]) -> bool:
    """Wake the first who waits; False when there is none."""
    try:
        parker = waiters.pop(0)
    except IndexError:
        return False
    parker.release()
    return True


def _has_left(waiters: list[Parker], parker: Parker) -> bool:
    """Take it out of the list; False when it is there no more: it was served."""
    try:
        waiters.remove(parker)
    except ValueError:
        return False
    return True


def _check_timeout(blocking: bool, timeout: float) -> None:
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
